"""At least once: records that come again, and members that die while they write, change no figure, window or alert."""

from __future__ import annotations

import functools
import random as randoms
from collections.abc import Callable, Mapping

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from river import linear_model, preprocessing

from at_least_once import FATES, AtLeastOnceLog
from cards import CONTRACTS, events, first_stage, published, view
from millstream.adapters.models.river_pipelines import declare
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch, Rejection
from millstream.core.drift.declared import Limits
from millstream.core.recent_keys import RecentKeys, first_times
from millstream.errors import Stop
from millstream.runtime.dead_letters import DeadLetterLimit, dead_letter_output
from millstream.runtime.flow import Flow
from millstream.runtime.log.memory_log import MemoryBroker, MemoryLog
from millstream.runtime.log.records import Output, Records
from millstream.runtime.loop import LoopLimits, StageLoop
from millstream.runtime.observer import Unobserved
from millstream.runtime.stage import Stage
from millstream.runtime.work import Work
from millstream.stages.learn.learner import Learner
from millstream.stages.learn.stage import LearnStage
from millstream.stages.monitor.monitor import MonitorStage
from millstream.stages.quality.blocks import MARKER, Blocks, records_of
from millstream.topology import DEAD_LETTERS, EXAMPLES, SCORED
from watched import DAY_MS, START_MS, examples, scored, traffic
from watching import EXAMPLE_SCHEMA, MODEL, NAMES, SCHEMA, alerts_of, filled, measure, monitor

KEY = b"sixteen bytes or more"
DECLARED = declare("fraud", preprocessing.StandardScaler() | linear_model.LogisticRegression(), ("a", "b"))


def drain(
    broker: MemoryBroker, make: Callable[[], Work], batch: int, rng: randoms.Random | None, least: int = 1
) -> StageLoop:
    """Run a stage to the end; with ``rng``, it dies again and again while it writes at least once."""

    def start() -> tuple[StageLoop, MemoryLog]:
        work = make()
        log = MemoryLog(broker, work.name) if rng is None else AtLeastOnceLog(broker, work.name, rng)
        size = batch if rng is None else rng.randint(least, batch)
        limits = LoopLimits(size, 1 << 60)
        loop = StageLoop(work, log, limits, DeadLetterLimit(1.0, 10), None, Unobserved(), now_ms=lambda: 0)
        loop.start()
        return loop, log

    loop, log = start()
    while True:
        if isinstance(log, AtLeastOnceLog) and rng is not None:
            log.fate = rng.choice((*FATES, "fine", "fine", "fine"))
        try:
            batches = loop.poll(0.0)
            if not batches:
                return loop
            loop.handle(batches)
            loop.checkpoint(loop.partitions if rng is not None and rng.random() < 0.3 else ())
        except Stop:
            loop, log = start()


@functools.cache
def history() -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return three days of scored events and their examples: a shift on the second."""
    moved_ms, turned_ms = (START_MS + DAY_MS, START_MS + 2 * DAY_MS), START_MS + DAY_MS
    seen = traffic(3, moved_ms=moved_ms, turned_ms=turned_ms, seed=3)
    batch = scored(SCHEMA, NAMES, MODEL, seen)
    known = examples(batch, seen, "transaction_id")
    return tuple(RecordWriter(SCHEMA).encode(batch)), tuple(RecordWriter(EXAMPLE_SCHEMA).encode(known))


def letters(number: int) -> Output:
    """Return dead letters of as many events."""
    zeros = np.zeros(number, dtype=np.int64)
    received = START_MS + np.arange(number) * 60_000
    records = Records("transactions", zeros, np.arange(number), received, [b"k"] * number, [b"v"] * number)
    found = [Rejection(row, "range", "amount", "") for row in range(number)]
    writer = RecordWriter(CONTRACTS[DEAD_LETTERS].schema)
    return dead_letter_output(records, found, "customer", START_MS, writer, 1 << 20, received.tolist())


def repeated(output: Output, rng: randoms.Random) -> Output:
    """Return records, some of them again soon after."""
    rows: list[int] = []
    for start in range(0, len(output.values), 40):
        rows += range(start, min(start + 40, len(output.values)))
        if rng.random() < 0.3:
            rows += range(max(0, rows[-1] - rng.randint(0, 60)), rows[-1] + 1)
    return Output(output.topic, [output.keys[i] for i in rows], [output.values[i] for i in rows], output.partition)


def _watched(rng: randoms.Random | None) -> tuple[list[dict[str, object]], Mapping[str, object]]:
    broker = filled(history())
    broker.append(letters(300))
    if rng is not None:
        for topic in (SCORED, EXAMPLES, DEAD_LETTERS):
            for number, held in enumerate(broker.log(topic)):
                again = Output(topic, [e[1] for e in held.entries], [e[2] for e in held.entries], number)
                held.entries = []
                broker.append(repeated(again, rng))
    # The log in memory reads one topic before the other: with less at once, hours close before their dead letters come.
    drain(broker, measure, 5000, rng, 4000)
    loop = drain(broker, lambda: monitor(Limits(dead_letter_share=0.02)), 2000, rng, 100)
    assert isinstance(loop.work, MonitorStage)
    assert loop.work.watch is not None
    told = {each["event_id"]: each for each in alerts_of(broker)}
    # Repeated records move the offsets that are evidence, and with them ids.
    kept = [
        {name: each[name] for name in ("kind", "event", "at_ms", "monitor", "statistic", "suppressed")}
        for each in told.values()
    ]
    return sorted(kept, key=repr), {"tallies": loop.work.watch.to_json()["tallies"]}


@settings(max_examples=2, deadline=None, phases=[Phase.generate])
@given(st.integers(0, 1 << 30))
def test_alerts_and_tallies_are_those_of_a_run_without_repetition(seed: int) -> None:
    calm, disturbed = _calm(), _watched(randoms.Random(seed))
    assert disturbed[0] == calm[0]
    assert disturbed[1] == calm[1]
    assert {"data", "concept"} <= {each["kind"] for each in calm[0]}


@functools.cache
def _calm() -> tuple[list[dict[str, object]], Mapping[str, object]]:
    return _watched(None)


@given(st.integers(0, 1 << 30), st.integers(5, 40))
@settings(max_examples=15, deadline=None, phases=[Phase.generate])
def test_windows_hold_each_event_once_and_every_event_is_published(seed: int, batch: int) -> None:
    output = published(events(150, 3))
    made = functools.partial(first_stage, view("activity", "customer"))

    def run(rng: randoms.Random | None) -> tuple[list[list[bytes | None]], list[dict[int, tuple[list[float], int]]]]:
        broker = MemoryBroker(partitions=2)
        broker.append(output)
        work = drain(broker, made, batch, rng).work
        assert isinstance(work, Stage)
        windows = []
        for _, store in sorted(work.featurize.stores.items()):
            keys, results, times = store.online(store.all_slots())
            features = np.hstack([results.reals, results.wholes.astype(object)])
            found = zip(keys.tolist(), features.tolist(), times.tolist(), strict=True)
            windows.append({key: (values, at) for key, values, at in sorted(found)})
        records = [{entry[2] for entry in held.entries} for held in broker.log("transactions.terminal")]
        return [sorted(each, key=repr) for each in records], windows

    assert repr(run(randoms.Random(seed))) == repr(run(None))


def _examples(count: int) -> Batch:
    rng = np.random.default_rng(5)
    return Batch(
        count,
        {
            "a": rng.normal(size=count),
            "b": rng.normal(size=count),
            "label": (rng.random(count) < 0.3).astype(np.float64),
            "event_id": np.array([f"e{i}" for i in range(count)], dtype=object),
            "revision": np.arange(count) + 1,
            "label_known_at_ms": np.arange(count),
        },
    )


@given(st.integers(0, 1 << 30))
@settings(max_examples=10, deadline=None, phases=[Phase.generate])
def test_the_learner_learns_an_example_that_comes_again_once(seed: int) -> None:
    rng = randoms.Random(seed)
    batch = _examples(200)
    broker = MemoryBroker(1)
    numbered = Output(EXAMPLES, [b"k"] * 200, [b"%d" % i for i in range(200)], 0)
    broker.append(repeated(numbered, rng))

    def validate(records: Records) -> Flow:
        rows = np.array([int(value or b"") for value in records.values], dtype=np.int64)
        return Flow(records, np.arange(len(rows)), batch.take(rows))

    loop = drain(broker, lambda: LearnStage(DECLARED, validate, KEY), 30, rng)
    assert isinstance(loop.work, LearnStage)
    assert loop.work.learner is not None
    calm = Learner(DECLARED)
    calm.learn(batch, "label", "examples[0]", np.arange(200))
    assert loop.work.learner.examples == calm.examples
    assert loop.work.learner.figures() == calm.figures()


def test_an_example_that_only_adds_to_the_history_of_its_event_is_not_learnt_again() -> None:
    batch = _examples(4)
    label, none = batch.columns["label"], np.array([True, False, False, False])
    previous = {"previous_label": label.copy(), "previous_known_at_ms": batch.columns["label_known_at_ms"].copy()}
    previous["previous_label"][2] = 1 - label[2]
    batch = batch.with_columns(previous, dict.fromkeys(previous, none))
    learner = Learner(DECLARED)
    learnt = learner.learn(batch, "label", "examples[0]", np.arange(4))
    assert learnt.taught.tolist() == [True, False, True, False]
    assert learner.offsets == {"examples[0]": 4}


def test_what_is_kept_is_bounded() -> None:
    kept: RecentKeys[int, bool] = RecentKeys(3)
    assert first_times(kept, [1, 1, 2, 3]).tolist() == [True, False, True, True]
    assert first_times(kept, [4, 1, 4]).tolist() == [True, True, False], "1 was dropped"


rows = st.dictionaries(st.sampled_from([b"a", b"b", b"c"]), st.one_of(st.none(), st.binary(max_size=2)))


@given(st.lists(st.tuples(rows, st.integers(0, 9)), max_size=6), st.booleans())
def test_a_block_that_was_cut_off_counts_for_nothing(
    blocks: list[tuple[dict[bytes, bytes | None], int]], end: bool
) -> None:
    read, held, stale = Blocks(), dict[bytes, bytes](), dict[bytes, None]()
    for number, (changes, written) in enumerate(blocks):
        # As the stage does: what a cut-off block may have left is written again.
        block = {**read.cut_off, **changes, MARKER: b"%d" % number}
        keys, values = records_of(block)
        count = len(keys) if not end or number % 2 else min(written, len(keys) - 1)
        for key, value in zip(keys[:count], values[:count], strict=True):
            read.take(key, value)
        if count == len(keys):
            stale = {}
            for key, value in block.items():
                held.pop(key, None)
                if value is not None:
                    held[key] = value
        else:
            stale |= dict.fromkeys(keys[1:count])
        assert read.rows == held
        assert read.cut_off == {key: held.get(key) for key in stale}
