"""What the stages `learn` and `quality` publish: examples learnt, and metrics on the labels known so far."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import Message

from millstream.adapters.models.river_snapshot import read_header
from millstream.app.quality_figures import QualityRecord, decoded, select
from millstream.core.avro.decode import RecordReader
from millstream.core.prequential import Prequential
from millstream.core.quality.scored_records import ANSWER, BLEND, CHAMPION, ONLINE
from millstream.errors import Refused

CONTENDERS = (CHAMPION, ONLINE, BLEND)
METRICS = ("average_precision", "auc", "card_precision_at_100", "log_loss", "brier")


@dataclass(frozen=True, slots=True)
class Day:
    """Metrics of a day's events.

    Parameters
    ----------
    day : str
        As a date.
    final : bool
        All labels that count have had time to arrive.
    labelled : float
        Share of the day's events, in [0, 1].
    positives : int
        Known by now.
    by_arm : mapping of str to float
        Average precision.
    """

    day: str
    final: bool
    labelled: float
    positives: int
    by_arm: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Contenders on the same events: days that are final and on which each of them scored every event.

    Parameters
    ----------
    days : tuple of str
    events, positives : int
    means : mapping of str to mapping of str to float
        By contender and metric, the mean over those days.
    """

    days: tuple[str, ...]
    events: int
    positives: int
    means: Mapping[str, Mapping[str, float]]


class Learning:
    """Keeps what the topics `quality` and `snapshots` hold.

    Parameters
    ----------
    quality : RecordReader
        Of `quality`.
    key : bytes
        Snapshots are signed with.

    Attributes
    ----------
    examples : int
        That the newest snapshot has learnt.
    before_learning : mapping of str to mapping of str to float
        Prequential metrics of the online model and the champion, over those examples.
    shown : list of QualityRecord
        Figures by day of the event and of all of them, of labels known within the shortest time that counts.
    days : list of Day
        Those of which something is known, in order.
    counted : int
        Examples that figures are made of.
    """

    def __init__(self, quality: RecordReader, key: bytes) -> None:
        self.examples = 0
        self.before_learning: Mapping[str, Mapping[str, float]] = {}
        self.shown: list[QualityRecord] = []
        self.days: list[Day] = []
        self.counted = 0
        self._reader = quality
        self._key = key
        self._newest: dict[bytes, QualityRecord] = {}

    def measured(self, messages: Sequence[Message]) -> None:
        """Take messages of `quality`."""
        newest = {each.key() or b"": each.value() for each in messages}
        present = {key: value for key, value in newest.items() if value is not None}
        found = dict(zip(present, decoded(self._reader.decode(list(present.values()), 1 << 30).batch), strict=True))
        for key in newest:
            self._newest.pop(key, None)
        self._newest |= found
        figures = [each for each in self._newest.values() if each.examples and each.value is not None]
        ages = {each.maturity_days for each in figures}
        shown = select(figures, "delayed", min(ages)) if ages else []
        self.shown = sorted(shown, key=lambda each: (each.day, each.who, each.metric))
        rates = [each for each in self._daily("base_rate") if each.arm == ANSWER]
        self.counted = sum(each.examples for each in rates)
        values = {(each.day, each.arm): each.value or 0.0 for each in self._daily("average_precision")}
        self.days = [
            Day(
                each.day,
                each.mature,
                each.coverage or 0.0,
                each.positives,
                {arm: values[each.day, arm] for arm in CONTENDERS if (each.day, arm) in values},
            )
            for each in sorted(rates, key=lambda each: each.day)
        ]

    def learnt(self, messages: Sequence[Message]) -> None:
        """Take messages of `snapshots`; unsigned ones are ignored."""
        try:
            header = read_header(messages[-1].value() or b"", self._key)
        except Refused:
            return  # scorers and `millstream models online` tell of it
        self.before_learning = {name: Prequential.of_state(each).figures() for name, each in header.metrics.items()}
        self.examples = header.examples

    def comparison(self) -> Comparison | None:
        """Return the contenders on the same events, None while there is no such day."""
        rates = {(each.day, each.arm): each for each in self._daily("base_rate")}
        answered = {day: rate for (day, arm), rate in rates.items() if arm == ANSWER and rate.mature}
        whole = {
            day: rate
            for day, rate in sorted(answered.items())
            if all((day, arm) in rates and rates[day, arm].examples == rate.examples for arm in CONTENDERS)
        }
        means: dict[str, dict[str, float]] = {arm: {} for arm in CONTENDERS}
        for metric in METRICS:
            daily = self._daily(metric)
            for arm in CONTENDERS:
                values = [each.value for each in daily if each.arm == arm and each.day in whole]
                sound = [each for each in values if each is not None]
                if sound:
                    means[arm][metric] = statistics.fmean(sound)
        if not whole:
            return None
        events, positives = (sum(getattr(each, name) for each in whole.values()) for name in ("examples", "positives"))
        return Comparison(tuple(whole), events, positives, means)

    def _daily(self, metric: str) -> list[QualityRecord]:
        """Return a metric by day; of a day and arm with several versions, the one that scored most."""
        most: dict[tuple[str, str], QualityRecord] = {}
        for each in self.shown:
            if each.metric == metric and each.day and not each.group_column:
                place = each.day, each.arm
                if place not in most or most[place].examples < each.examples:
                    most[place] = each
        return list(most.values())
