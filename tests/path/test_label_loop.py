"""Labels in any order, join and quality dying anywhere: figures as recomputed; on the log in memory, so many times."""

from __future__ import annotations

import random
from typing import TypeVar

import numpy as np
import pytest

from at_least_once import FATES, AtLeastOnceLog
from cards import events
from fakes_ledger_store import FakeLedgerStore
from millstream.app.assembly import Assembly, assemble
from millstream.app.label_stages import join_stage, quality_stage
from millstream.app.replaying import History
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.core.ledger.tally import counters, decode_report
from millstream.core.partitioner import partition_of
from millstream.core.text import as_text
from millstream.errors import Stop
from millstream.runtime.dead_letters import DeadLetterLimit
from millstream.runtime.log.memory_log import MemoryBroker, MemoryLog
from millstream.runtime.log.records import Output
from millstream.runtime.loop import LoopLimits, StageLoop
from millstream.runtime.observer import Unobserved
from millstream.runtime.work import Work
from millstream.settings import load_settings
from millstream.topology import EXAMPLES, JOIN_CHANGELOG, LABELS, QUALITY, SCORED
from quality_oracle import by_key, recomputed
from statements import PRECEDENCE, label_records, statements

_Log = TypeVar("_Log", bound=MemoryLog)
EVENTS = 120
GROUP = "transaction_context__is_weekend"


@pytest.fixture(scope="module")
def assembly() -> Assembly:
    """The reference domain."""
    return assemble(load_settings({}, label_precedence=PRECEDENCE, quality_group=GROUP))


@pytest.fixture(scope="module")
def scored(assembly: Assembly) -> Batch:
    """What was answered, and beside it what a champion and an online model might have said."""
    rng = np.random.default_rng(3)
    batch = History(assembly).feed(events(EVENTS, seed=3, step_ms=3_600_000)).scored
    said = {f"{name}_score": rng.random(EVENTS) for name in ("champion", "online")}
    version = {"champion_version": np.arange(EVENTS) // 50 + 1}
    nulls = {"champion_score": rng.random(EVENTS) < 0.1, "online_score": rng.random(EVENTS) < 0.5}
    return batch.with_columns({**said, **version}, {**nulls, "champion_version": np.zeros(EVENTS, dtype=np.bool_)})


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_labels_and_any_deaths_end_with_the_same_figures(
    assembly: Assembly, scored: Batch, seed: int
) -> None:
    rng = random.Random(seed)
    said, believed = statements(scored, random.Random(1))
    said += rng.sample(said, 10)
    rng.shuffle(said)
    broker = MemoryBroker(2, now_ms=max(each[2] for each in said))
    for topic in (EXAMPLES, JOIN_CHANGELOG, QUALITY, f"{QUALITY}.changelog"):
        broker.log(topic)[1:] = []
    todo = _outputs(assembly, scored, said)
    rng.shuffle(todo)
    stores = [FakeLedgerStore(), FakeLedgerStore()]

    def join() -> StageLoop:
        stage = join_stage(assembly, assembly.resolver(), lambda partition: stores[partition])
        return _started(stage, MemoryLog(broker, stage.name))[0]

    def quality() -> StageLoop:
        stage = quality_stage(assembly, assembly.resolver())
        return _started(stage, MemoryLog(broker, stage.name))[0]

    loops = {"join": join(), "quality": quality()}
    for start in range(0, len(todo), 20):
        for output in todo[start : start + 20]:
            broker.append(output)
        for name, loop in loops.items():
            loop.handle(loop.poll(0))
            if rng.random() < 0.4:
                loop.checkpoint(loop.partitions)
            fate = rng.choice(["go on", "join dies", "quality dies", "disk lost"])
            if fate.startswith(name) or (fate == "disk lost" and name == "join"):
                if fate == "disk lost":
                    stores[:] = [FakeLedgerStore(), FakeLedgerStore()]
                loops[name] = join() if name == "join" else quality()
    for loop in loops.values():
        while batches := loop.poll(0):
            loop.handle(batches)
        loop.checkpoint(loop.partitions)
    last = loops["quality"]
    while batches := last.poll(0):
        last.handle(batches)
    last.checkpoint(last.partitions)

    newest = {key: value for _, key, value in broker.log(QUALITY)[0].entries}
    reader = RecordReader(assembly.contracts[QUALITY].schema, assembly.resolver())
    wanted = recomputed(assembly, scored, said, believed, _as_of_ms(assembly, broker))
    assert by_key(reader.decode(list(newest.values()), 1 << 30).batch) == wanted
    assert {key.split("|")[3] for key in wanted} == {"answer", "champion", "online", "blend"}
    told = [decode_report(v or b"") for _, k, v in broker.log(JOIN_CHANGELOG)[0].entries if k == b"0"][-1]
    assert counters(told.tally)["labelled"] > 0


@pytest.mark.parametrize("seed", [0, 19])
def test_at_least_once_repeats_nothing_in_figures_and_beliefs(assembly: Assembly, scored: Batch, seed: int) -> None:
    rng = random.Random(seed)
    said, believed = statements(scored, random.Random(1))
    broker = MemoryBroker(2, now_ms=max(each[2] for each in said))
    for topic in (EXAMPLES, JOIN_CHANGELOG, QUALITY, f"{QUALITY}.changelog"):
        broker.log(topic)[1:] = []
    todo = _outputs(assembly, scored, said)
    rng.shuffle(todo)
    for output in _again(assembly, scored, rng):
        # An event that was processed twice is scored twice, perhaps by another model; the first answer stands.
        first = next(place for place, each in enumerate(todo) if each.keys == output.keys and each.topic == SCORED)
        todo.insert(rng.randrange(first + 1, len(todo) + 1), output)
    stores = [FakeLedgerStore(), FakeLedgerStore()]

    def start(name: str) -> tuple[StageLoop, AtLeastOnceLog]:
        log = AtLeastOnceLog(broker, name, rng)
        if name == "join":
            return _started(join_stage(assembly, assembly.resolver(), lambda partition: stores[partition]), log)
        return _started(quality_stage(assembly, assembly.resolver()), log)

    def step(name: str) -> None:
        loop, log = running[name]
        log.fate = rng.choice((*FATES, "fine", "fine"))
        try:
            loop.handle(loop.poll(0))
            loop.checkpoint(loop.partitions if rng.random() < 0.5 else ())  # waits for what is being written
        except Stop:
            running[name] = start(name)

    running = {name: start(name) for name in ("join", "quality")}
    for at in range(0, len(todo), 20):
        for output in todo[at : at + 20]:
            broker.append(output)
        for name in running:
            step(name)
    for name in ("join", "quality"):
        loop, log = running[name]
        log.fate = "fine"
        while batches := loop.poll(0):
            loop.handle(batches)
        loop.checkpoint(loop.partitions)
    newest = {key: value for _, key, value in broker.log(QUALITY)[0].entries}
    reader = RecordReader(assembly.contracts[QUALITY].schema, assembly.resolver())
    wanted = recomputed(assembly, scored, said, believed, _as_of_ms(assembly, broker))
    assert by_key(reader.decode(list(newest.values()), 1 << 30).batch) == wanted


def _again(assembly: Assembly, scored: Batch, rng: random.Random) -> list[Output]:
    """Return some of the events scored once more, by another model."""
    rows = np.array(sorted(rng.sample(range(EVENTS), 30)))
    again = scored.take(rows)
    again = again.with_columns(
        {"champion_version": again.columns["champion_version"] + 7, "score": 1 - again.columns["score"]}
    )
    return _answers(assembly, again)


def _outputs(assembly: Assembly, scored: Batch, said: list[tuple[int, float | None, int, str, str]]) -> list[Output]:
    keys, values = label_records(assembly.contracts, said)
    made = [Output(LABELS, [key], [value]) for key, value in zip(keys, values, strict=True)]
    return made + _answers(assembly, scored)


def _answers(assembly: Assembly, scored: Batch) -> list[Output]:
    answered = RecordWriter(assembly.topology.stages[-1].output_schema).encode(scored)
    ids = as_text(scored.columns["transaction_id"])
    return [Output(SCORED, [key], [value]) for key, value in zip(ids, answered, strict=True)]


def _started(work: Work, log: _Log) -> tuple[StageLoop, _Log]:
    limits = LoopLimits(30, 1_000_000)
    loop = StageLoop(work, log, limits, DeadLetterLimit(1.0, 10), None, Unobserved(), now_ms=lambda: 0)
    loop.start()
    return loop, log


def _as_of_ms(assembly: Assembly, broker: MemoryBroker) -> int:
    labels = RecordReader(assembly.contracts[LABELS].schema, assembly.resolver())
    reached = []
    for held in broker.log(LABELS):
        batch = labels.decode([value for _, _, value in held.entries], 1 << 30).batch
        reached.append(int(batch.columns["known_at_ms"].max()))
        assert set(partition_of([key or b"" for _, key, _ in held.entries], 2).tolist()) == {len(reached) - 1}
    examples = RecordReader(assembly.examples_schema, assembly.resolver())
    published = examples.decode([value for _, _, value in broker.log(EXAMPLES)[0].entries], 1 << 30).batch
    return min(*reached, int(published.columns["label_known_at_ms"].max()))
