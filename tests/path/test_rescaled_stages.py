"""After a rescale every stage goes on as if there had always been so many partitions."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cards import events, published, topology, view
from fakes_ledger_store import FakeLedgerStore
from millstream.app.assembly import Assembly, assemble
from millstream.app.label_stages import join_stage, quality_stage
from millstream.app.monitoring import measure_stage, monitor_stage
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.core.drift.declared import Limits
from millstream.runtime.dead_letters import DeadLetterLimit
from millstream.runtime.log.memory_log import MemoryBroker, MemoryLog
from millstream.runtime.log.records import Output
from millstream.runtime.loop import LoopLimits, StageLoop
from millstream.runtime.observer import Unobserved
from millstream.runtime.work import Work
from millstream.settings import load_settings
from millstream.stages.monitor.monitor import MonitorStage
from millstream.testing.workers import broker_for
from millstream.topology import (
    ALERTS,
    DEAD_LETTERS,
    EXAMPLES,
    LABELS,
    LEARN,
    MEASURE,
    MEASURE_CHANGELOG,
    MEASURES,
    MODELS,
    MONITOR,
    MONITOR_CHANGELOG,
    QUALITY,
    SCORED,
    Topic,
    Topology,
)
from quality_oracle import by_key
from rescaling import rescaled
from statements import PRECEDENCE, label_records, statements
from watched import DAY_MS, HOUR_MS, START_MS, examples, scored, traffic
from watching import EXAMPLE_SCHEMA, MODEL, NAMES, SCHEMA, alerts_of, measure, models, monitor_of

COUNT, MORE = 2, 5
EVENTS = 150


@pytest.fixture(scope="module")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    return assemble(load_settings({}, state_dir=tmp_path_factory.mktemp("rescaled"), label_precedence=PRECEDENCE))


def _loop(broker: MemoryBroker, work: Work, size: int = 200) -> StageLoop:
    limits = LoopLimits(size, 1 << 60)
    loop = StageLoop(
        work, MemoryLog(broker, work.name), limits, DeadLetterLimit(1.0, 10), None, Unobserved(), now_ms=lambda: 0
    )
    loop.start()
    return loop


def _loops(assembly: Assembly, broker: MemoryBroker) -> list[StageLoop]:
    """Return all stages but the learner on ledgers that are empty, as after a rescale."""
    resolve = assembly.resolver()
    ledgers = {partition: FakeLedgerStore() for partition in range(broker.partitions)}
    works: list[Work] = [assembly.stage(plan, resolve) for plan in assembly.topology.stages]
    works += [
        join_stage(assembly, resolve, ledgers.__getitem__),
        quality_stage(assembly, resolve),
        measure_stage(assembly, resolve),
        monitor_stage(assembly, resolve, broker.partitions),
    ]
    return [_loop(broker, work) for work in works]


def _drain(loops: list[StageLoop]) -> None:
    moved = True
    while moved:
        moved = False
        for loop in loops:
            if batches := loop.poll(0.0):
                loop.handle(batches)
                moved = True


def _publish(broker: MemoryBroker, loops: list[StageLoop], outputs: list[Output]) -> None:
    for output in outputs:
        broker.append(output)
        _drain(loops)


def _settled(loops: list[StageLoop]) -> None:
    """Have everything published that checkpoints publish."""
    for _ in range(2):
        for loop in loops:
            loop.checkpoint(loop.partitions)
        _drain(loops)


def _batch(broker: MemoryBroker, topic: str, reader: RecordReader) -> Batch:
    values = [value for held in broker.log(topic) for _, _, value in held.entries]
    return reader.decode(values, 1 << 30).batch


def _answers(assembly: Assembly, broker: MemoryBroker) -> dict[int, list[object]]:
    """Return the features, windows over labels included, and the answer by event."""
    schema = assembly.topology.stages[-1].output_schema
    batch = _batch(broker, SCORED, RecordReader(schema, assembly.resolver()))
    varying = {"source_partition", "source_offset", "scored_at_ms", "received_at_ms"}
    names = [name for name in schema.names if name not in varying]
    columns = [
        [None if null else value for null, value in zip(batch.is_null(n), batch.columns[n].tolist(), strict=True)]
        for n in names
    ]
    rows = list(zip(*columns, strict=True))
    assert len(rows) == len(set(batch.columns["transaction_id"].tolist())), "each event is answered once"
    return dict(zip(batch.columns["transaction_id"].tolist(), map(list, rows), strict=True))


def _beliefs(assembly: Assembly, broker: MemoryBroker) -> dict[str, list[object]]:
    """Return the newest example of each event; no revision may be there twice."""
    batch = _batch(broker, EXAMPLES, RecordReader(assembly.examples_schema, assembly.resolver()))
    names = ("event_id", "revision", "label", "label_known_at_ms", "belief_history")
    columns = [
        [None if null else value for null, value in zip(batch.is_null(n), batch.columns[n].tolist(), strict=True)]
        for n in names
    ]
    rows = sorted(zip(*columns, strict=True), key=lambda row: (row[0], row[1]))
    assert len({row[:2] for row in rows}) == len(rows), "no example is published twice"
    # How many examples led there depends on micro-batches; what is believed at last, and was before, does not.
    return {str(row[0]): [row[2], row[3], row[4]] for row in rows}


def _figures(assembly: Assembly, broker: MemoryBroker) -> dict[str, tuple[object, ...]]:
    newest = {key: value for _, key, value in broker.log(QUALITY)[0].entries}
    reader = RecordReader(assembly.contracts[QUALITY].schema, assembly.resolver())
    return by_key(reader.decode(list(newest.values()), 1 << 30).batch)


def _watch(loops: list[StageLoop]) -> Any:
    work = next(loop.work for loop in loops if loop.name == MONITOR)
    assert isinstance(work, MonitorStage)
    assert work.watch is not None
    return work.watch.to_json()


def _without_learner(found: Topology) -> Topology:
    readers = {topic.name: tuple(name for name in topic.readers if name != LEARN) for topic in found.topics}
    return replace(found, topics=tuple(replace(topic, readers=readers[topic.name]) for topic in found.topics))


def test_answers_beliefs_and_figures_are_those_of_a_run_that_never_grew(
    assembly: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(4)
    batch = events(EVENTS, seed=4, step_ms=11_000_000)  # three weeks
    said, _ = statements(batch, rng)
    said.sort(key=lambda each: each[2])
    keys, values = label_records(assembly.contracts, said)
    times_ms = batch.columns["event_time_ms"]
    outputs: list[Output] = []
    begun = 0
    for rows in np.arange(EVENTS)[:, None]:
        newest_ms = int(times_ms[rows].max())
        until = sum(each[2] <= newest_ms for each in said)
        stamps = [each[2] for each in said[begun:until]]
        outputs += [Output(LABELS, keys[begun:until], values[begun:until], timestamps_ms=stamps)] if stamps else []
        begun = until
        outputs.append(published(batch.take(rows)))
    stamps = [each[2] for each in said[begun:]]
    outputs.append(Output(LABELS, keys[begun:], values[begun:], timestamps_ms=stamps))
    plan = _without_learner(assembly.topology)

    calm = broker_for(plan, MORE)
    calm_loops = _loops(assembly, calm)
    _publish(calm, calm_loops, outputs)
    _settled(calm_loops)

    broker = broker_for(plan, COUNT)
    loops = _loops(assembly, broker)
    cut = 2 * len(outputs) // 3
    _publish(broker, loops, outputs[:cut])
    _settled(loops)
    for loop in loops:
        loop.close()
    grown = rescaled(plan, broker, MORE, monkeypatch)
    again = _loops(assembly, grown)
    _publish(grown, again, outputs[cut:])
    _settled(again)

    assert _answers(assembly, grown) == _answers(assembly, calm)
    assert _beliefs(assembly, grown) == _beliefs(assembly, calm)
    found, wanted = _figures(assembly, grown), _figures(assembly, calm)
    assert len(wanted) > 50
    assert found == wanted


def _watched_topology() -> Topology:
    """Return scored events and what watches them; the stage before them has nothing to do."""
    before = topology(view("customer_activity", "customer"), view("terminal_activity", "terminal"))
    stage = replace(before.stages[0], internal="w.")
    return Topology(
        "watched",
        (stage,),
        (
            Topic(stage.input, "k", "producers", (stage.name,)),
            Topic(stage.changelog, "k", stage.name, (stage.name,), "compact"),
            Topic(SCORED, "k", "producers", (MEASURE,)),
            Topic(DEAD_LETTERS, "k", "producers", (MEASURE,)),
            Topic(MEASURES, "k", MEASURE, (MONITOR,), partitions=1),
            Topic(MEASURE_CHANGELOG, "k", MEASURE, (MEASURE,), "compact"),
            Topic(EXAMPLES, "k", "producers", (MONITOR,), partitions=1),
            Topic(MONITOR_CHANGELOG, "k", MONITOR, (MONITOR,), "compact", 1),
            Topic(ALERTS, "k", MONITOR, (), "compact", 1),
            Topic(MODELS, "k", "operators", (), "compact", 1),
        ),
    )


def _alerts(broker: MemoryBroker) -> list[list[object]]:
    """Return what was alerted; which records were its evidence, and the ids that follow from them, are of a layout."""
    names = ("event", "kind", "feature", "monitor", "statistic", "threshold", "subject_count")
    return [[alert[name] for name in names] for alert in alerts_of(broker)]


def test_monitors_alert_as_if_there_had_always_been_so_many_partitions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved_ms, turned_ms = (START_MS + DAY_MS, START_MS + 2 * DAY_MS), START_MS + DAY_MS
    seen = traffic(3, moved_ms=moved_ms, turned_ms=turned_ms, seed=3)
    batch = scored(SCHEMA, NAMES, MODEL, seen)
    answered = RecordWriter(SCHEMA).encode(batch)
    known = RecordWriter(EXAMPLE_SCHEMA).encode(examples(batch, seen, "transaction_id"))
    keys = [b"%d" % row for row in range(len(answered))]
    # Three events into an hour: most partitions of afterwards have none of it, of those before some have.
    cut = 3 + int(np.searchsorted(seen.times_ms, START_MS + DAY_MS + 9 * HOUR_MS))
    plan = _watched_topology()

    def run(broker: MemoryBroker, rows: slice, begin: bool) -> list[StageLoop]:
        if begin:
            broker.append(models())
        counting, telling = _loop(broker, measure()), _loop(broker, monitor_of(Limits(), broker.partitions))
        for start in range(rows.start, rows.stop, 200):
            part = slice(start, min(start + 200, rows.stop))
            broker.append(Output(SCORED, keys[part], answered[part]))
            broker.append(Output(EXAMPLES, keys[part], known[part], 0))
            _drain([counting, telling])
        return [counting, telling]

    calm = broker_for(plan, MORE)
    calm_loops = run(calm, slice(0, len(keys)), begin=True)
    broker = broker_for(plan, COUNT)
    for loop in run(broker, slice(0, cut), begin=True):
        loop.close()
    grown = rescaled(plan, broker, MORE, monkeypatch)
    again = run(grown, slice(cut, len(keys)), begin=False)
    wanted = _alerts(calm)
    assert len(wanted) > 3
    assert _alerts(grown) == wanted
    found, undisturbed = _watch(again), _watch(calm_loops)
    assert found["judged"] == undisturbed["judged"]
    closed = [[each for each in watch["tallies"] if each[0] <= watch["judged"]] for watch in (found, undisturbed)]
    assert closed[0] == closed[1]
