"""Dead letters count in the hours in which they came, however a history is read: one alert while their share lasts."""

from __future__ import annotations

import numpy as np

from cards import CONTRACTS, events, first_stage, published, view
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Rejection
from millstream.core.drift.declared import Limits
from millstream.runtime.dead_letters import dead_letter_output
from millstream.runtime.log.memory_log import MemoryBroker
from millstream.runtime.log.records import Output, Records
from millstream.topology import DEAD_LETTERS
from watched import START_MS, traffic
from watched import scored as scored_of
from watching import MODEL, NAMES, SCHEMA, alerts_of, filled, loop_of, measure, monitor

DAYS = 3
HOUR_MS = 3_600_000


def _letters(times_ms: np.ndarray, received_ms: int) -> Output:
    n = len(times_ms)
    zeros, received = np.zeros(n, dtype=np.int64), np.full(n, received_ms)
    records = Records("transactions", zeros, np.arange(n), received, [b"k"] * n, [b"v"] * n)
    found = [Rejection(row, "range", "amount", "") for row in range(n)]
    writer = RecordWriter(CONTRACTS[DEAD_LETTERS].schema)
    return dead_letter_output(records, found, "customer", received_ms, writer, 1 << 20, times_ms.tolist())


def test_a_share_that_lasts_is_one_incident_though_a_history_is_read_at_once() -> None:
    batch = scored_of(SCHEMA, NAMES, MODEL, traffic(DAYS, seed=3))
    broker = filled((tuple(RecordWriter(SCHEMA).encode(batch)), ()))
    # One in some fifteen, from the first hour to the last, and all arrive long after they happened.
    times_ms = START_MS + np.arange(DAYS * 24 * 4) * HOUR_MS // 4
    broker.append(_letters(times_ms, START_MS + 400 * 24 * HOUR_MS))
    for work in (measure(), monitor(Limits(dead_letter_share=0.01))):
        loop = loop_of(broker, work, 500)
        while batches := loop.poll(0.0):
            loop.handle(batches)
    found = [each for each in alerts_of(broker) if each["kind"] == "quality"]
    assert [each["event"] for each in found if each["event"] != "update"] == ["open"], "neither closed nor opened again"
    assert 0.03 < float(str(found[0]["statistic"])) < 0.1
    assert len({each["id"] for each in found}) == 1


def test_a_dead_letter_says_how_far_the_stream_had_come_when_it_was_read() -> None:
    batch = events(6, 3)
    output = published(batch)
    keys, values, stamps = list(output.keys), list(output.values), list(output.timestamps_ms or [])
    last_ms = stamps[-1]
    # Before, between and after sound records; the first of them comes when nothing is known.
    broken = Output(
        output.topic,
        [b"1", *keys[:3], b"1", *keys[3:], b"1"],
        [b"junk", *values[:3], b"junk", *values[3:], b"junk"],
        0,
        [last_ms, *stamps[:3], last_ms, *stamps[3:], last_ms],
    )
    broker = MemoryBroker(1)
    broker.append(broken)
    loop = loop_of(broker, first_stage(view("activity", "customer")), 100)
    while batches := loop.poll(0.0):
        loop.handle(batches)
    broker.append(Output(output.topic, [b"1"], [b"junk"], 0))
    loop.handle(loop.poll(0.0))
    letters = [value for _, _, value in broker.log(DEAD_LETTERS)[0].entries]
    read = RecordReader(CONTRACTS[DEAD_LETTERS].schema, lambda _: None).decode(letters, 1 << 20).batch
    times_ms = batch.columns["event_time_ms"].tolist()
    assert read.columns["offset"].tolist() == [0, 4, 8, 9]
    reached = read.columns["stream_time"].tolist()
    assert reached[1:3] == [str(np.datetime64(each, "ms")) for each in (times_ms[2], times_ms[5])]
    # Of the last, a micro-batch of its own without a sound record: how far the partition's event time has come.
    assert min(times_ms) <= np.datetime64(reached[3], "ms").astype(np.int64) <= max(times_ms)
