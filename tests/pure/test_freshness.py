"""How far behind the online view is, and what is told of it, of duplicates and of silence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from cards import events, first_stage, published, view
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Array, Batch
from millstream.core.drift.declared import Limits
from millstream.core.drift.slot_summary import Summary, Tally
from millstream.runtime.log.memory_log import MemoryBroker
from millstream.runtime.log.records import Output
from millstream.stages.monitor.freshness import EVERY_S, Columns, Freshness
from millstream.topology import MEASURES, SCORED
from watched import DAY_MS, HOUR_MS, START_MS, scored, traffic
from watching import NAMES, SCHEMA, alerts_of, filled, loop_of, measure, monitor

VIEWS = {"activity": Columns("customer_id", "customer__feature_time_us")}


class Store:
    """Feature times by key; a clock beside it."""

    def __init__(self) -> None:
        self.times_us: dict[int, int] = {}
        self.now_s = 100.0

    def __call__(self, view: str, keys: Array) -> Sequence[int | None]:
        assert view == "activity"
        return [self.times_us.get(each) for each in keys.tolist()]


def _batch(*rows: tuple[int, int, int]) -> Batch:
    """Return scored events of (key, feature time us, scored at ms)."""
    keys, times_us, scored_ms = np.array(rows, dtype=np.int64).T
    return Batch(
        len(rows),
        {"customer_id": keys, "customer__feature_time_us": times_us, "scored_at_ms": scored_ms},
    )


def test_a_row_is_waited_for_until_the_store_has_one_at_least_as_new() -> None:
    store = Store()
    fresh = Freshness(store, VIEWS, lambda: store.now_s)
    fresh.sample(_batch((7, 5_000, 1_000), (8, 6_000, 1_500)))
    store.times_us = {7: 4_999, 8: 6_001}
    assert fresh.behind_ms(now_ms=3_000) == 2_000
    assert not fresh.due
    store.now_s += EVERY_S
    assert fresh.due
    assert (
        fresh.behind_ms(now_ms=9_000) == 8_000
    )  # the older it gets, the farther behind: it is not asked of news alone
    store.times_us[7] = 5_000
    assert fresh.behind_ms(now_ms=10_000) == 0


def _told(broker: MemoryBroker, tally: dict[int, Tally]) -> None:
    broker.append(Output(MEASURES, [b"0"], [Summary(-1, None, {}, tally).encode()], 0))


def test_duplicates_and_online_features_that_stay_behind_are_held_against_limits() -> None:
    seen = traffic(1, per_hour=100, seed=6)
    broker = filled((tuple(RecordWriter(SCHEMA).encode(scored(SCHEMA, NAMES, "fraud", seen))), ()))
    slot = START_MS // HOUR_MS
    _told(broker, {slot + 6: Tally(duplicates=100), slot + 9: Tally(behind_ms=700_000)})
    run = loop_of(broker, measure(), 5000)
    while batches := run.poll(0.0):
        run.handle(batches)
    run = loop_of(broker, monitor(Limits()), 5000)
    while batches := run.poll(0.0):
        run.handle(batches)
    told = {(each["kind"], each["feature"], each["event"]): each for each in alerts_of(broker)}
    repeated, behind = told["quality", "duplicates", "open"], told["operations", "freshness", "open"]
    assert repeated["statistic"] == pytest.approx(100 / 700, rel=0.1)
    assert repeated["at_ms"] == START_MS + 7 * HOUR_MS
    assert (behind["statistic"], behind["threshold"]) == (700_000, 600_000)
    assert told["operations", "freshness", "close"]["at_ms"] == START_MS + 13 * HOUR_MS


def test_that_nothing_comes_is_told_of_a_live_stream_and_of_no_replay() -> None:
    seen = traffic(1, per_hour=100, seed=6)
    broker = filled((tuple(RecordWriter(SCHEMA).encode(scored(SCHEMA, NAMES, "fraud", seen))), ()))
    stage = measure()
    run = loop_of(broker, stage, 5000)
    while batches := run.poll(0.0):
        run.handle(batches)
    end_ms = START_MS + DAY_MS
    assert stage.idle(end_ms + HOUR_MS - 1) == []
    assert stage.idle(end_ms + 400 * DAY_MS) == []
    (output,) = stage.idle(end_ms + HOUR_MS)
    assert [Summary.decode(each or b"").slot for each in output.values] == [(end_ms + HOUR_MS) // HOUR_MS] * 2
    broker.append(output)
    assert stage.idle(end_ms + HOUR_MS + 1) == []
    run = loop_of(broker, monitor(Limits(events_per_hour=20)), 5000)
    while batches := run.poll(0.0):
        run.handle(batches)
    (opened,) = [each for each in alerts_of(broker) if each["event"] == "open"]
    assert (opened["feature"], opened["at_ms"]) == ("throughput", end_ms + HOUR_MS)


def test_a_partition_that_is_not_reached_yet_is_waited_for_and_an_idle_one_is_not() -> None:
    seen = traffic(1, per_hour=100, seed=6)
    whole = filled((tuple(RecordWriter(SCHEMA).encode(scored(SCHEMA, NAMES, "fraud", seen))), ()))
    broker = filled(((), ()))
    stage, now_s = measure(), [0.0]
    stage._clock_s = lambda: now_s[0]
    run = loop_of(broker, stage, 5000)

    def publish(partition: int, hours: slice) -> None:
        entries = whole.log(SCORED)[partition].entries
        per_hour = len(entries) // 24
        mine = entries[hours.start * per_hour : hours.stop * per_hour]
        broker.append(Output(SCORED, [each[1] for each in mine], [each[2] for each in mine], partition))
        while batches := run.poll(0.0):
            run.handle(batches)

    def closed() -> dict[int, int]:
        told = [Summary.decode(each or b"") for each in broker.records(MEASURES, 0, 0, 1 << 20).values]
        return {each.partition: each.slot for each in told if each.slot is not None}

    publish(1, slice(0, 2))
    publish(0, slice(0, 8))
    assert closed()[0] - closed()[1] >= 4, "a publisher comes to one partition after the other"
    publish(1, slice(2, 8))
    now_s[0] = 60.0
    publish(0, slice(8, 12))
    assert closed()[0] - closed()[1] >= 2, "it has only just fallen behind"
    now_s[0] = 66.0
    publish(0, slice(12, 14))
    assert closed()[0] == closed()[1], "it is idle"


def test_a_stage_tells_of_events_that_had_come_before() -> None:
    broker = MemoryBroker()
    stage = first_stage(view("activity", "customer"))
    for _ in range(2):
        broker.append(published(events(30)))
    run = loop_of(broker, stage, 60)
    run.handle(run.poll(0.0))
    (told,) = broker.records(MEASURES, 0, 0, 9).values
    summary = Summary.decode(told or b"")
    newest_ms = int(events(30).columns["event_time_ms"].max())
    assert summary.slot is None
    assert dict(summary.tallies) == {newest_ms // HOUR_MS: Tally(duplicates=30)}
