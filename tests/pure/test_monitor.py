"""Measures and alerts on the in-memory log: what changed is told, once, wherever the stages are cut off."""

from __future__ import annotations

import functools
import json
import random as randoms
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from cards import CONTRACTS
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.core.drift.declared import Limits, Monitors
from millstream.core.drift.incidents import Policy
from millstream.core.drift.online_scores import online_block
from millstream.core.drift.slot_counts import Block
from millstream.core.drift.slot_summary import Summary, Tally
from millstream.core.drift.watch import Watch
from millstream.runtime.log.memory_log import MemoryBroker, MemoryLog
from millstream.runtime.log.records import Output
from millstream.runtime.work import Work
from millstream.testing.faults import crash
from millstream.topology import DEAD_LETTERS, EXAMPLES, MEASURES, SCORED
from watched import DAY_MS, HOUR_MS, START_MS, WEEK_MS, examples, scored, traffic
from watching import (
    EXAMPLE_SCHEMA,
    MODEL,
    NAMES,
    PARTITIONS,
    SCHEMA,
    alerts_of,
    filled,
    loop_of,
    measure,
    monitor,
    unknown,
    unlimited,
)

MOVED_MS = START_MS + 2 * DAY_MS, START_MS + 3 * DAY_MS
TURNED_MS = START_MS + 3 * DAY_MS


@functools.cache
def _history() -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return six days of scored events and their examples: a data incident on day 2, another concept from day 3 on."""
    seen = traffic(6, moved_ms=MOVED_MS, turned_ms=TURNED_MS, seed=3)
    batch = scored(SCHEMA, NAMES, MODEL, seen)
    known = examples(batch, seen, "transaction_id")
    return tuple(RecordWriter(SCHEMA).encode(batch)), tuple(RecordWriter(EXAMPLE_SCHEMA).encode(known))


def _drain(broker: MemoryBroker, make: Callable[[], Work], random: randoms.Random | None = None) -> None:
    """Run a stage to the end; with ``random``, cut off again and again, checkpoints now and then."""
    loop = loop_of(broker, make(), 5000)
    while batches := loop.poll(0.0):
        if random is not None and random.random() < 0.15:
            crash(loop, written=random.random() < 0.5)
            loop = loop_of(broker, make(), random.randint(50, 3000))
            continue
        loop.handle(batches)
        if random is not None and random.random() < 0.3:
            loop.checkpoint(random.sample(loop.partitions, random.randint(0, len(loop.partitions))))


@functools.cache
def _undisturbed() -> list[dict[str, object]]:
    broker = filled(_history())
    _drain(broker, measure)
    _drain(broker, unlimited)
    return alerts_of(broker)


def test_a_shift_of_a_feature_opens_and_closes_a_data_incident_and_nothing_else() -> None:
    data = [each for each in _undisturbed() if each["kind"] != "concept"]
    assert {each["kind"] for each in data} == {"data"}
    assert [data[0]["event"], data[-1]["event"], data[-1]["reason"]] == ["open", "close", "recovered"]
    assert len({each["id"] for each in data}) == 1
    first = data[0]
    assert first["feature"] == NAMES[-1]
    assert MOVED_MS[0] < first["at_ms"] <= MOVED_MS[0] + 6 * HOUR_MS
    assert MOVED_MS[1] < data[-1]["at_ms"] <= MOVED_MS[1] + 30 * HOUR_MS
    assert first["model_version"] == 1
    assert first["impact"] == pytest.approx(0.25 * json.loads(str(first["subjects"]))[0]["shift"])
    where = json.loads(str(first["offsets"]))
    assert sorted(where) == ["0", "1"]
    assert first["topic"] == SCORED
    assert all(0 <= low < high for low, high in where.values())


def test_another_concept_opens_a_concept_incident_that_stays_open() -> None:
    told = [each for each in _undisturbed() if each["kind"] == "concept"]
    # The online model says 0.5 of everything: what that means changes as well, and is then what labels say of it.
    assert {each["model"] for each in told} == {MODEL, "online"}
    concept = [each for each in told if each["model"] == MODEL]
    assert concept[0]["event"] == "open"
    assert {each["event"] for each in concept[1:]} <= {"update"}
    assert concept[0]["monitor"] == "more positives than scored"
    assert TURNED_MS + WEEK_MS < concept[0]["at_ms"] <= TURNED_MS + WEEK_MS + DAY_MS
    assert json.loads(str(concept[0]["offsets"]))["0"][0] >= 3 * 24 * 60 * 0.9
    assert concept[0]["window_from_ms"] >= TURNED_MS - 6 * HOUR_MS


@settings(max_examples=6, deadline=None, phases=[Phase.generate])
@given(st.integers(0, 1 << 30))
def test_cut_off_anywhere_it_tells_the_same_alerts_once(seed: int) -> None:
    random = randoms.Random(seed)
    broker = filled(_history())
    _drain(broker, measure, random)
    _drain(broker, unlimited, random)
    found, want = alerts_of(broker), _undisturbed()
    for kind in ("data", "concept"):
        assert [each for each in found if each["kind"] == kind] == [each for each in want if each["kind"] == kind]
    assert len(found) == len(want)


def _poison() -> list[bytes | None]:
    """Return what no partition can have told; most would tell of a great many dead letters, if half of it counted."""
    slot = START_MS // HOUR_MS + 30
    loud = {slot: Tally(events=1, dead=1_000_000)}
    strange = Block(np.ones((2, 3), dtype=np.int64), np.zeros(2, dtype=np.int64), np.zeros(0, dtype=np.int64), 0, 9)
    whole = json.loads(Summary(0, slot, {}, loud).encode())
    return [
        b"nonsense",
        None,
        b"[]",
        b"[" * 100_000,
        b'{"partition":0,"slot":5,"blocks":[[1,5,"x"]],"tallies":[]}',
        Summary(0, slot, {(1, slot): strange}, loud).encode(),
        Summary(0, slot, {(0, slot): strange}, loud).encode(),
        Summary(PARTITIONS, slot, {}, loud).encode(),
        Summary(-1, slot, {}, loud).encode(),
        Summary(0, slot, {}, {slot: Tally(latencies=[1], dead=1_000_000)}).encode(),
        *(json.dumps({**whole, "slot": each}).encode() for each in (-1, 1 << 40, True, 5.5, "5", slot - 1)),
    ]


@functools.cache
def _sound() -> MemoryBroker:
    broker = filled(_history())
    _drain(broker, measure)
    return broker


@functools.cache
def _poisoned() -> tuple[tuple[bytes | None, ...], tuple[bytes | None, ...]]:
    """Return measures and examples with what cannot be read in between, right after the data incident has begun."""
    topics = []
    for topic, bad in ((MEASURES, _poison()), (EXAMPLES, [b"nonsense", None, b"\xc3\x01" + b"x" * 20])):
        values = [value for _, _, value in _sound().log(topic)[0].entries]
        for i, each in enumerate(bad):
            values.insert(len(values) * (i + 1) // (len(bad) + 1), each)
        topics.append(tuple(values))
    return topics[0], topics[1]


@settings(max_examples=4, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.integers(0, 1 << 30))
@example(None)
def test_what_cannot_be_read_is_passed_over_alike_wherever_it_is_cut_off_and_ends_as_a_dead_letter(
    seed: int | None,
) -> None:
    broker = filled(((), ()))
    for topic, values in zip((MEASURES, EXAMPLES), _poisoned(), strict=True):
        broker.append(Output(topic, [b"k"] * len(values), list(values), 0))
    _drain(broker, unlimited, None if seed is None else randoms.Random(seed))
    found, want = alerts_of(broker), _undisturbed()
    for kind in ("data", "concept"):  # of concept, the offsets in `examples` are others, and ids made of them
        left = {"id", "event_id", "offsets", "subjects"} if kind == "concept" else set()
        said = [[{k: v for k, v in a.items() if k not in left} for a in b if a["kind"] == kind] for b in (found, want)]
        assert said[0] == said[1]
    assert len(found) == len(want)
    reader = RecordReader(CONTRACTS[DEAD_LETTERS].schema, unknown)
    letters = [reader.decode(broker.records(DEAD_LETTERS, p, 0, 1 << 30).values, 1 << 20).batch for p in range(2)]
    columns = {name: [x for each in letters for x in each.columns[name].tolist()] for name in letters[0].columns}
    turned = dict(zip(columns["id"], columns["value"], strict=True))
    assert len(turned) == len(columns["id"])
    assert {(a, b) for a, b in zip(columns["stage"], columns["topic"], strict=True)} == {
        ("monitor", MEASURES),
        ("monitor", EXAMPLES),
    }
    assert all(columns["detail"])
    sound = {topic: {v for _, _, v in _sound().log(topic)[0].entries} for topic in (MEASURES, EXAMPLES)}
    assert turned == {
        f"{topic}-0-{offset}": value or b""
        for topic, values in zip((MEASURES, EXAMPLES), _poisoned(), strict=True)
        for offset, value in enumerate(values)
        if value not in sound[topic]
    }


def test_what_cannot_be_read_is_an_error_in_the_log_and_counts_as_turned_away(caplog: pytest.LogCaptureFixture) -> None:
    broker = filled(((), ()))
    broker.append(Output(MEASURES, [b"k"] * 2, [Summary(0, 5, {}, {}).encode(), b"nonsense"], 0))
    stage = unlimited()
    stage.open(MemoryLog(broker, stage.name), 0, dict.fromkeys(stage.inputs), lambda words: None)
    processed = stage.process([broker.records(MEASURES, 0, 0, 2)], 7)
    assert [(each.row, each.reason) for flow in processed.flows for each in flow.rejections] == [(1, "undecodable")]
    assert "1 of 2 records of measures cannot be used and are passed over, the first is measures[0]@1" in caplog.text


_WHOLE = Summary(
    1,
    430_000,
    {
        (2, 429_999): Block(
            np.ones((3, 4), dtype=np.int64), np.ones(3, dtype=np.int64), np.ones(2, dtype=np.int64), 3, 9
        ),
        (0, 429_998): online_block(np.array([0.5, np.nan]), np.array([4, 5])),
    },
    {429_999: Tally(events=5, late=1)},
)
_OTHER = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from([1 << 40, 1 << 63, 10**30, 430_001]),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(0, 3), max_size=3),
    st.just({}),
)


def _changed(draw: st.DrawFn, value: object) -> object:
    """Return a value of JSON with one part of it, anywhere, replaced or gone."""
    if isinstance(value, str) and value and draw(st.booleans()):
        at = draw(st.integers(0, len(value) - 1))
        return value[:at] + draw(st.sampled_from(["", "A", "=", "%"])) + value[at + 1 :]
    if not isinstance(value, dict | list) or not value or not draw(st.integers(0, 4)):
        return draw(_OTHER)
    keys = sorted(value) if isinstance(value, dict) else range(len(value))
    key, copy = draw(st.sampled_from(keys)), value.copy()
    if draw(st.integers(0, 5)):
        copy[key] = _changed(draw, value[key])
    else:
        del copy[key]
    return copy


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_summary_that_is_not_one_is_refused_before_it_changes_anything(data: st.DataObject) -> None:
    assert Summary.decode(_WHOLE.encode()).encode() == _WHOLE.encode()
    changed = json.dumps(_changed(data.draw, json.loads(_WHOLE.encode()))).encode()
    watch = Watch(MODEL, unknown, PARTITIONS, Monitors(), SCORED, Policy())
    before = watch.to_json()
    try:
        summary = Summary.decode(changed)
        watch.check(summary)
    except (ValueError, KeyError, TypeError):
        assert watch.to_json() == before
        return
    assert Summary.decode(summary.encode()).encode() == summary.encode()
    watch.update(summary)
    json.dumps(watch.to_json())


def test_a_new_champion_ends_what_was_said_of_the_old_one_and_brings_its_own_reference() -> None:
    before = traffic(3, moved_ms=MOVED_MS, seed=3)
    after = traffic(2, start_ms=START_MS + 3 * DAY_MS, seed=4)
    records = [
        each
        for version, seen in ((1, before), (2, after))
        for each in RecordWriter(SCHEMA).encode(scored(SCHEMA, NAMES, MODEL, seen, version))
    ]
    broker = filled((tuple(records), ()))
    _drain(broker, measure)
    _drain(broker, unlimited)
    told = alerts_of(broker)
    assert [(each["event"], each["model_version"]) for each in told][:: len(told) - 1] == [("open", 1), ("close", 1)]
    assert told[-1]["reason"] == "superseded"
    assert told[-1]["at_ms"] == START_MS + 3 * DAY_MS + HOUR_MS


def test_an_online_model_that_goes_wrong_is_told_by_its_own_past_wherever_the_stages_are_cut_off() -> None:
    seen, wrong_ms = traffic(32, per_hour=90, seed=9), START_MS + 30 * DAY_MS
    none = seen.times_ms < START_MS + DAY_MS  # no snapshot yet
    online = np.where(seen.times_ms >= wrong_ms, seen.scores**2, seen.scores)
    batch = scored(SCHEMA, NAMES, MODEL, seen).with_columns(
        {"online_score": online}, {"online_version": none, "online_score": none}
    )
    records = tuple(RecordWriter(SCHEMA).encode(batch))
    found = []
    for random in (None, randoms.Random(4)):
        broker = filled((records, ()))
        _drain(broker, measure, random)
        _drain(broker, unlimited, random)
        found.append([each for each in alerts_of(broker) if (each["kind"], each["model"]) == ("score", "online")])
    first = found[0][0]
    assert (first["event"], first["model"], first["model_version"], first["topic"]) == ("open", "online", 0, SCORED)
    assert wrong_ms < first["at_ms"] <= wrong_ms + 6 * HOUR_MS
    assert str(first["reference"]).endswith("from 2018-08-02 to 2018-08-30, by hour of the week")
    assert found[1] == found[0]


def test_dead_letters_late_events_and_slow_scores_are_held_against_limits() -> None:
    seen = traffic(1, per_hour=300, seed=6)
    batch = scored(SCHEMA, NAMES, MODEL, seen)
    slow = seen.times_ms >= START_MS + 12 * HOUR_MS
    batch = batch.with_columns({"scored_at_ms": seen.times_ms + np.where(slow, 5000, 20)})
    broker = filled((tuple(RecordWriter(SCHEMA).encode(batch)), ()))
    count = 180
    columns = {field.name: np.full(count, "x", dtype=object) for field in CONTRACTS[DEAD_LETTERS].schema.fields}
    columns |= {name: np.arange(count) for name in ("partition", "offset", "failed_at_ms")}
    columns |= {name: np.full(count, b"", dtype=object) for name in ("key", "value", "whole_sha256")}
    columns |= {
        "stage": np.array(["customer"] * 90 + ["join"] * 90, dtype=object),
        "reason": np.array((["late"] * 30 + ["range"] * 60) * 2, dtype=object),
        "received_at_ms": np.full(count, START_MS + 5 * HOUR_MS),
    }
    letters = RecordWriter(CONTRACTS[DEAD_LETTERS].schema).encode(Batch(count, columns))
    broker.append(Output(DEAD_LETTERS, [b"k"] * count, letters, 0))
    _drain(broker, measure)
    _drain(broker, lambda: monitor(Limits(dead_letter_share=0.02, late_share=0.02, latency_p99_ms=1000)))
    told = alerts_of(broker)
    found = {(each["kind"], each["feature"], each["event"]) for each in told}
    assert ("quality", "dead letters", "open") in found
    assert ("operations", "latency", "open") in found
    assert not any(each["feature"] == "late events" for each in told)
    (opened,) = [each for each in told if each["kind"] == "quality" and each["event"] == "open"]
    assert opened["statistic"] == pytest.approx(60 / 1890, rel=0.1)
    assert opened["at_ms"] == START_MS + 6 * HOUR_MS
