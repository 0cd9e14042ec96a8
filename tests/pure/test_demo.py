"""The demo's account of the label loop: which labels are due, how days mature, who is compared on which events."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from sklearn.metrics import average_precision_score

from millstream.adapters.files.contracts import load_contract
from millstream.cli.demo.alarms import Alarms
from millstream.cli.demo.feed import first_unlabelled
from millstream.cli.demo.injection import Injection, announcement
from millstream.cli.demo.learning import Learning
from millstream.cli.demo.screen import Moment, Screen
from millstream.cli.demo.summary import compare, list_alerts
from millstream.cli.demo.watching import Seen
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.core.drift.alert import Evidence, Kind, Signal
from millstream.core.drift.incidents import Evaluation, Policy, initial, update
from millstream.core.drift.seasons import HOUR_MS
from millstream.core.metrics import DAY_MS
from millstream.core.quality.board import Board
from millstream.core.quality.report import Reporter
from millstream.core.quality.scored_records import ScoredRecords
from millstream.core.quality.topic import as_batch
from millstream.settings import load_settings
from millstream.stages.monitor.monitor import as_batch as as_alerts
from millstream.topology import ALERTS, QUALITY
from online_models import KEY, declared, learner_of

SCHEMA = load_contract(load_settings({}), QUALITY).schema
MEASURED = ScoredRecords("at_ms", "fraud", "block", 0.5, "card")
DAYS, PER_DAY = 4, 60
RNG = np.random.default_rng(4)
COUNT = DAYS * PER_DAY
AT_MS = np.arange(COUNT) * (DAY_MS // PER_DAY)
TRUTH = RNG.random(COUNT) < 0.3
CHAMPION, ONLINE = (np.clip(0.4 * TRUTH + 0.6 * RNG.random(COUNT), 0, 1) for _ in range(2))
UNSCORED = AT_MS < 1.5 * DAY_MS  # by the online model, which begins late
LABELLED = slice(0, 3 * PER_DAY + 20)


@dataclass
class Told:
    """A message."""

    name: bytes
    said: bytes | None

    def key(self) -> bytes:
        return self.name

    def value(self) -> bytes | None:
        return self.said


def figures(rows: slice, as_of_ms: int) -> list[Told]:
    """Return what the quality stage publishes when these events are labelled, a week after they happened."""
    n = len(AT_MS[rows])
    columns = {
        "event_id": np.array([f"e{each}" for each in range(COUNT)], dtype=object)[rows],
        "at_ms": AT_MS[rows],
        "card": np.arange(n) % 9,
        "arm": np.full(n, "champion", dtype=object),
        "score": CHAMPION[rows],
        "model": np.full(n, "fraud", dtype=object),
        "model_version": np.full(n, 1),
        "decision": np.where(CHAMPION[rows] >= 0.5, "block", "allow").astype(object),
        "threshold": np.full(n, 0.5),
        "champion_score": CHAMPION[rows],
        "champion_version": np.full(n, 1),
        "online_score": np.where(UNSCORED, 0.0, ONLINE)[rows],
        "label": TRUTH[rows] * 1.0,
        "label_known_at_ms": AT_MS[rows] + 7 * DAY_MS,
        "revision": np.ones(n, dtype=np.int64),
    }
    board = Board((7, 30))
    board.update(MEASURED.examples(Batch(n, columns, {"online_score": UNSCORED[rows]})))
    batch = as_batch(Reporter(board).report(as_of_ms), as_of_ms)
    keys = [str(each).encode() for each in batch.columns["key"].tolist()]
    return [Told(key, value) for key, value in zip(keys, RecordWriter(SCHEMA).encode(batch), strict=True)]


@pytest.fixture
def learning() -> Learning:
    """What has been told when three days are over and the fourth has begun to be labelled."""
    made = Learning(RecordReader(SCHEMA, lambda _: None), KEY)
    made.measured(figures(slice(0, 20), 7 * DAY_MS))  # type: ignore[arg-type]
    assert (made.counted, [day.final for day in made.days], made.comparison()) == (20, [False], None)
    made.measured(figures(LABELLED, 10 * DAY_MS + 1))  # type: ignore[arg-type]
    made.learnt([Told(b"fraud", learner_of(declared(), 30).snapshot(KEY)), Told(b"fraud", b"forged")][:1])  # type: ignore[arg-type]
    return made


def test_days_mature_and_contenders_are_compared_on_the_same_events(learning: Learning) -> None:
    assert learning.counted == 3 * PER_DAY + 20
    assert [day.final for day in learning.days] == [True, True, True, False]
    assert [set(day.by_arm) for day in learning.days] == [{"champion"}, *[{"champion", "online", "blend"}] * 3]
    found = learning.comparison()
    assert found is not None
    assert found.days == ("1970-01-03",), "on the second day the online model scored half of the events"
    rows = slice(2 * PER_DAY, 3 * PER_DAY)
    assert (found.events, found.positives) == (PER_DAY, int(TRUTH[rows].sum()))
    scores = {"champion": CHAMPION[rows], "online": ONLINE[rows], "blend": (CHAMPION[rows] + ONLINE[rows]) / 2}
    for arm, given in scores.items():
        wanted = average_precision_score(TRUTH[rows], given)
        assert found.means[arm]["average_precision"] == pytest.approx(wanted, abs=1e-12)
    learning.learnt([Told(b"fraud", b"forged")])  # type: ignore[list-item]
    assert learning.examples == 30


@pytest.fixture
def alarms() -> Alarms:
    """Two features' incident that opened and closed, and one of the model that is open."""

    def signal(kind: Kind, feature: str, hour: int, ratio: float) -> Signal:
        evidence = Evidence((hour - 6) * HOUR_MS, hour * HOUR_MS, "scored", ((0, 10, 90),))
        return Signal(kind, "fraud", 3, feature, "", "psi over 6 h", ratio / 10, 0.1, evidence, "May", 0.5, 0.2)

    said = [
        Evaluation(
            hour * HOUR_MS,
            (
                signal("data", "amount", hour, data),
                signal("data", "mean", hour, data),
                signal("concept", "", hour, 4.0),
            ),
        )
        for hour, data in ((100, 2.0), (101, 0.1), (102, 0.1), (103, 0.1))
    ]
    told = update(initial(), said, Policy())[1]
    schema = load_contract(load_settings({}), ALERTS).schema
    found = Alarms(RecordReader(schema, lambda _: None))
    for alert, value in zip(told, RecordWriter(schema).encode(as_alerts(told)), strict=True):
        found.update([Told(alert.id.encode(), value)])  # type: ignore[list-item]
    return found


def test_the_changes_that_the_demo_makes_are_where_it_says_and_nowhere_else() -> None:
    count = 40_000
    times_ms = np.arange(count) * (20 * DAY_MS // count)
    amounts = np.where(np.arange(count) % 2, 10.0, 90.0)
    stream = pl.DataFrame({"event_time_ms": times_ms, "amount": amounts, "is_fraud": np.zeros(count, int)})
    planned = Injection((5 * DAY_MS, 7 * DAY_MS), (1 * DAY_MS, 4 * DAY_MS), missing_share=0.5, fraud_share=0.1)
    changed = planned.into(stream)
    gone = ~np.isin(times_ms, changed["event_time_ms"].to_numpy())
    small = (times_ms >= 5 * DAY_MS) & (times_ms < 7 * DAY_MS) & (amounts < 50)
    assert not gone[~small].any()
    assert 0.45 < gone[small].mean() < 0.55
    fraud = changed["is_fraud"].to_numpy() == 1
    within = changed["event_time_ms"].is_between(1 * DAY_MS, 4 * DAY_MS, closed="left").to_numpy()
    assert not fraud[~within].any()
    assert 0.08 < fraud[within].mean() < 0.12
    assert planned.into(stream).equals(changed), "a run that goes on must not change what was published"


def test_only_what_is_still_to_come_is_announced() -> None:
    planned = Injection((11 * DAY_MS, 12 * DAY_MS), (4 * DAY_MS, 5 * DAY_MS))
    both, missing, none = (announcement(planned, day * DAY_MS) for day in (0, 6, 40))
    assert "is a fraud of a new kind" in both
    assert "do not come" in both
    assert "fraud of a new kind" not in missing
    assert "12 Jan 00:00 to 13 Jan 00:00" in missing
    assert none == "Both injected changes are in the past of this run; --fresh starts before them."


def test_it_is_all_shown(learning: Learning, alarms: Alarms, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=150)
    moment = Moment(Seen(), learning, alarms, 240, 240, 200, 3.0)
    screen = Screen("fraud")
    console.print(screen.frame(moment))
    console.print(screen.line(moment), soft_wrap=True)
    compare(console, learning, tmp_path / "quality.png")
    list_alerts(console, alarms)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for wanted in ("1970-01-04", "open", "final", "200 labels published, 7 days late", "30 learnt, 3 days final"):
        assert wanted in text
    assert "mean of 1 day (1970-01-03) with all labels: 60 events" in text
    assert "1 alerts open, 1 closed" in text
    for incident in (r"data +\w+ +amount +2 +05 Jan 1970 04:00:00 +05 Jan 1970 07:00:00", r"concept .* open"):
        assert len(re.findall(incident, text)) == 2, "in the live view and at the end"
    assert (tmp_path / "quality.png").read_bytes()[:4] == b"\x89PNG"


def test_labels_are_told_once_whenever_the_demo_was_interrupted() -> None:
    rng = np.random.default_rng(1)
    times_ms = np.sort(rng.integers(0, 30 * DAY_MS, 500))
    live_row = 100
    stops = np.sort(rng.integers(live_row, 500, 5)).tolist()
    ends = [first_unlabelled(times_ms, live_row, stop) for stop in [live_row, *stops, 500]]
    assert ends == sorted(ends)
    for stop, end in zip([live_row, *stops, 500], ends, strict=True):
        known = times_ms[live_row:] + 6 * DAY_MS <= times_ms[stop - 1]
        assert end == live_row + int(known.sum())
    assert ends[-1] > live_row
