"""No record stops a stage: whatever can be decoded is used or becomes a dead letter, live and in recovery alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes_ledger_store import FakeLedgerStore
from millstream.app.assembly import Assembly, assemble
from millstream.app.label_stages import join_stage, learn_stage, quality_stage
from millstream.app.monitoring import measure_stage, monitor_stage
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.schema import Field, Schema
from millstream.core.batch import Batch
from millstream.core.requirements import UNUSABLE
from millstream.core.text import as_text
from millstream.runtime.dead_letters import DeadLetterLimit
from millstream.runtime.log.memory_log import MemoryBroker, MemoryLog
from millstream.runtime.log.records import Output
from millstream.runtime.loop import LoopLimits, StageLoop
from millstream.runtime.observer import Unobserved
from millstream.runtime.work import Work
from millstream.settings import load_settings
from millstream.topology import (
    DEAD_LETTERS,
    EXAMPLES,
    JOIN,
    LABELS,
    LEARN,
    MEASURE,
    MONITOR,
    QUALITY,
    SCORED,
)

NOW_MS = 1_541_030_400_000
LONGS = [0, 1, -1, 2**31, -(2**31), 2**53 + 1, 2**63 - 1, -(2**63), NOW_MS, 253_402_300_799_999, 253_402_300_800_000]
DOUBLES = [0.0, -0.0, 1.0, 0.5, 37.5, -0.25, 1.0000001, float("nan"), float("inf"), -float("inf"), 1e308, 5e-324]
TEXTS = ["", "a", "[[1,0]]", "[[1e99,1]]", "x" * 300, "\0", "ü€", "retraction", "7", "-1"]
EXTREME: dict[str, list[Any]] = {
    "int": [0, 1, -1, 2**31 - 1, -(2**31)],
    "long": LONGS,
    "float": DOUBLES[:10],
    "double": DOUBLES,
    "boolean": [True, False],
    "string": TEXTS,
    "bytes": [b"", b"\xff\xfe", b"x" * 300],
}
USUAL: dict[str, Any] = {
    "score": 0.25, "champion_score": 0.25, "champion_version": 1, "online_score": 0.5, "online_version": 3,
    "threshold": 0.5, "label": 1.0, "previous_label": None, "previous_known_at_ms": None, "revision": 7,
    "arm": "champion", "decision": "allow", "belief_history": "[[1541030400000,1],[1541030500000,null]]",
}  # fmt: skip
DTYPES = {"int": np.int64, "long": np.int64, "float": np.float64, "double": np.float64, "boolean": np.bool_}


@pytest.fixture(scope="module")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    return assemble(load_settings({}, state_dir=tmp_path_factory.mktemp("any")))


@dataclass
class Stage:
    """How to make one stage, and the schema and key column of each of its inputs."""

    build: Callable[[], Work]
    inputs: Mapping[str, tuple[Schema, str]]


def stages(assembly: Assembly) -> Iterator[tuple[str, Stage]]:
    resolve, contracts = assembly.resolver(), assembly.contracts
    scored, examples = assembly.topology.stages[-1].output_schema, assembly.examples_schema
    for plan in assembly.topology.stages:
        inputs = {plan.input: (plan.input_schema, assembly.contract.key if plan.first else plan.join_key)}
        if plan.labels is not None:
            inputs[plan.labels.input] = plan.labels.schema, plan.labels.key_column
        yield plan.name, Stage(lambda plan=plan: assembly.stage(plan, resolve), inputs)
    event_id = assembly.contract.event_id
    on_examples = {EXAMPLES: (examples, "event_id")}
    on_scored = {SCORED: (scored, event_id)}
    join = {**on_scored, LABELS: (contracts[LABELS].schema, "event_id")}
    yield JOIN, Stage(lambda: join_stage(assembly, resolve, lambda _partition: FakeLedgerStore()), join)
    yield LEARN, Stage(lambda: learn_stage(assembly, resolve), on_examples)
    yield QUALITY, Stage(lambda: quality_stage(assembly, resolve), on_examples)
    measured = {**on_scored, DEAD_LETTERS: (contracts[DEAD_LETTERS].schema, "id")}
    yield MEASURE, Stage(lambda: measure_stage(assembly, resolve), measured)
    yield MONITOR, Stage(lambda: monitor_stage(assembly, resolve, 1), on_examples)


NAMES = ("customer", "terminal", JOIN, LEARN, QUALITY, MEASURE, MONITOR)


def usual(field: Field, at: int) -> Any:
    """Return what a sound record has there."""
    if field.name in USUAL:
        return USUAL[field.name]
    if field.kind in {"int", "long"}:
        return NOW_MS + 1000 * at if field.name.endswith("_ms") else at
    made: dict[str, Any] = {"float": 1.5, "double": 1.5, "boolean": True, "bytes": b"b"}
    return made.get(field.kind, field.symbols[0] if field.symbols else str(at))


@st.composite
def rows(draw: st.DrawFn, schema: Schema) -> list[dict[str, Any]]:
    """Draw records that are sound but for a few fields."""
    made = []
    for at in range(1, draw(st.integers(1, 6)) + 1):
        row = {field.name: usual(field, at) for field in schema.fields}
        for field in draw(st.lists(st.sampled_from(schema.fields), max_size=3)):
            choices = list(field.symbols) if field.symbols else EXTREME[field.kind]
            row[field.name] = draw(st.sampled_from([None, *choices] if field.nullable else choices))
        made.append(row)
    return made


def encoded(schema: Schema, made: list[dict[str, Any]]) -> list[bytes]:
    columns, nulls = {}, {}
    for field in schema.fields:
        cells = [row[field.name] for row in made]
        blank = b"" if field.kind == "bytes" else "" if field.kind not in DTYPES else 0
        column = np.empty(len(made), dtype=DTYPES.get(field.kind, object))
        column[:] = [blank if cell is None else cell for cell in cells]
        columns[field.name], nulls[field.name] = column, np.array([cell is None for cell in cells])
        if field.symbols:
            columns[field.name][nulls[field.name]] = field.symbols[0]
    return RecordWriter(schema).encode(Batch(len(made), columns, nulls))


def run(broker: MemoryBroker, work: Work) -> StageLoop:
    """Let a stage process all there is and hand its partitions back."""
    log = MemoryLog(broker, work.name)
    loop = StageLoop(work, log, LoopLimits(100, 1 << 40), DeadLetterLimit(1.0, 1), None, Unobserved(), now_ms=lambda: 5)
    loop.start()
    while batches := loop.poll(0.0):
        loop.handle(batches)
    loop.handle([])
    loop.close()
    return loop


def refused(broker: MemoryBroker, assembly: Assembly) -> dict[str, str]:
    """Return reasons by id of the dead letters that are there."""
    reader = RecordReader(assembly.contracts[DEAD_LETTERS].schema, assembly.resolver())
    found: dict[str, str] = {}
    for partition in range(broker.partitions):
        records = broker.records(DEAD_LETTERS, partition, 0, broker.log(DEAD_LETTERS)[partition].end)
        columns = reader.decode(records.values, 1 << 30).batch.columns
        found |= dict(zip(columns["id"].tolist(), columns["reason"].tolist(), strict=True))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_no_decodable_record_stops_a_stage(name, assembly):
    @settings(
        max_examples=5 if name == LEARN else 15, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        stage = dict(stages(assembly))[name]
        broker = MemoryBroker(1, now_ms=NOW_MS)
        for topic, (schema, key) in stage.inputs.items():
            for _ in range(2):
                drawn = data.draw(rows(schema), label=topic)
                keys = as_text(np.array([row[key] for row in drawn], dtype=object))
                broker.append(Output(topic, keys, encoded(schema, drawn), 0, [NOW_MS] * len(drawn)))
        run(broker, stage.build())
        once = refused(broker, assembly)
        committed = dict(broker.committed)
        for topic in set(broker.topics) - {*stage.inputs, DEAD_LETTERS}:
            del broker.topics[topic]  # state and outputs are lost: recovery folds every record again, silently
        written = broker.log(DEAD_LETTERS)[0].end
        run(broker, stage.build())
        assert (broker.log(DEAD_LETTERS)[0].end, refused(broker, assembly)) == (written, once)
        assert broker.committed == committed
        broker.committed.clear()  # and from the beginning, as a new group: refused alike
        run(broker, stage.build())
        assert refused(broker, assembly) == once

    check()


@pytest.mark.parametrize("name", [LEARN, QUALITY, MEASURE, MONITOR, JOIN])
@pytest.mark.parametrize("score", [37.5, -0.25, float("nan")])
def test_a_score_outside_the_contract_is_a_dead_letter_of_each_stage_behind_it(name, score, assembly):
    stage = dict(stages(assembly))[name]
    topic, (schema, key) = next(iter(stage.inputs.items()))
    made = [{field.name: usual(field, at) for field in schema.fields} for at in (1, 2, 3)]
    made[1]["champion_score"] = made[1]["score"] = score
    broker = MemoryBroker(1, now_ms=NOW_MS)
    keys = as_text(np.array([row[key] for row in made], dtype=object))
    broker.append(Output(topic, keys, encoded(schema, made), 0, [NOW_MS] * 3))
    work = stage.build()
    run(broker, work)
    assert refused(broker, assembly) == {f"{topic}-0-1": UNUSABLE}
    assert broker.committed[name, topic, 0] == 3
