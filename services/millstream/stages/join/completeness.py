"""Label completeness of a partition: counters kept in the ledger's store, published as absolute values.

Each message replaces the one before with its key, so reading them twice, or only the newest, gives the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from millstream.core.batch import Rows
from millstream.core.ledger import rows
from millstream.core.ledger.tally import SIZE, LedgerReport, encode_report
from millstream.core.metrics import DAY_MS
from millstream.core.quality.board import PredictionGroup
from millstream.core.quality.part import PredictionCounts
from millstream.core.quality.snapshot import decode_predicted, encode_predicted
from millstream.ports import LedgerStore

NEVER_MS = -1


@dataclass(frozen=True, slots=True)
class CompletenessUpdate:
    """What a micro-batch adds to an account.

    Parameters
    ----------
    tally : int64 ndarray
    scored_to_ms, labels_to_ms : int
        Newest event time among its predictions, and newest time a label of it became known; -1 without any.
    predicted : mapping of PredictionGroup to PredictionCounts
        Its predictions that are new.
    """

    tally: Rows
    scored_to_ms: int = NEVER_MS
    labels_to_ms: int = NEVER_MS
    predicted: Mapping[PredictionGroup, PredictionCounts] = field(default_factory=dict)


class CompletenessAccount:
    """The account of one partition, as its store holds it.

    Parameters
    ----------
    store : LedgerStore

    Attributes
    ----------
    report : LedgerReport
        Tally, and how far both inputs have come.
    predicted : dict of int to dict of PredictionGroup to PredictionCounts
        By day of the event.
    """

    def __init__(self, store: LedgerStore) -> None:
        tally, clock = store.read([rows.TALLY, rows.CLOCK])
        self.report = LedgerReport(rows.decode_tally(tally, SIZE), *rows.decode_clock(clock, 2))
        held = store.scan(rows.DAY, rows.DAY + b"\xff" * 9, 1 << 20)
        self.predicted = {rows.day_of(key): decode_predicted(value, rows.day_of(key)) for key, value in held}
        # It is unknown what of it was published before a crash.
        self._unpublished: dict[int, None] = dict.fromkeys(self.predicted)

    def add(self, counted: CompletenessUpdate) -> list[tuple[bytes, bytes]]:
        """Take what a micro-batch adds, and return the rows that hold it."""
        report = self.report
        self.report = LedgerReport(
            report.tally + counted.tally,
            max(report.scored_to_ms, counted.scored_to_ms),
            max(report.labels_to_ms, counted.labels_to_ms),
        )
        for seen, more in counted.predicted.items():
            day = self.predicted.setdefault(seen.day, {})
            day[seen] = PredictionCounts.total([day[seen], more]) if seen in day else more
        days = dict.fromkeys(seen.day for seen in counted.predicted)
        self._unpublished |= days
        puts = [(rows.day_key(day), encode_predicted(self.predicted[day])) for day in days]
        return [
            *puts,
            (rows.TALLY, rows.encode_tally(self.report.tally)),
            (rows.CLOCK, rows.encode_clock(self.report.scored_to_ms, self.report.labels_to_ms)),
        ]

    def cover(self, days: Iterable[int]) -> list[tuple[bytes, bytes]]:
        """Count nothing on those of the days of which there is no prediction, and return the rows that hold it.

        For a ledger that was built again with other keys: what was published of a day before must be replaced.
        """
        missing = [day for day in days if day not in self.predicted]
        self.predicted |= {day: {} for day in missing}
        self._unpublished |= dict.fromkeys(missing)
        return [(rows.day_key(day), encode_predicted({})) for day in missing]

    def forget(self, before_ms: int) -> list[bytes]:
        """Forget days that ended before this time, and return the keys of their rows."""
        past = [day for day in self.predicted if (day + 1) * DAY_MS <= before_ms]
        for day in past:
            del self.predicted[day]
        self._unpublished |= dict.fromkeys(past)
        return [rows.day_key(day) for day in past]

    def messages(self, partition: int) -> tuple[list[bytes], list[bytes | None]]:
        """Return keys and values of what is to be published; None where a day is forgotten."""
        days = list(self._unpublished)
        keys = [b"%d" % partition, *(b"%d|%d" % (partition, day) for day in days)]
        values = [encode_predicted(self.predicted[day]) if day in self.predicted else None for day in days]
        return keys, [encode_report(self.report), *values]

    def mark_published(self) -> None:
        """Mark the last `messages` as committed."""
        self._unpublished.clear()


def newest_ms(times_ms: Rows) -> int:
    """Return the newest time, `NEVER_MS` without any."""
    return int(np.max(times_ms, initial=NEVER_MS))
