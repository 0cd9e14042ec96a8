"""Another domain through all stages on real servers: flights, with text keys, planes that are not known, and nulls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from millstream.adapters.embedded import endpoints as servers
from millstream.adapters.kafka.dead_letters import read_dead_letters
from millstream.adapters.kafka.producer import Deliveries, drain, open_producer, publish
from millstream.app.assembly import Assembly, assemble
from millstream.app.late_labels import Labels
from millstream.app.replaying import History
from millstream.app.setup import initialise
from millstream.cli import program
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.core.text import as_text
from millstream.runtime.bootstrap import seed
from millstream.runtime.dead_letters import DeadLetterLimit
from millstream.runtime.log.memory_log import MemoryBroker, MemoryLog
from millstream.runtime.log.records import Output
from millstream.runtime.loop import LoopLimits, StageLoop
from millstream.runtime.observer import Unobserved
from millstream.settings import Settings, load_settings
from millstream.topology import DEAD_LETTERS, EXAMPLES, LABELS, MEASURES, PREDICTIONS, QUALITY, SCORED, SNAPSHOTS
from repos import STORE
from running import Workers, committed, wait_until

CONTRACT = """
{
  "type": "record", "name": "Flight", "namespace": "airport",
  "millstream": {"key": "carrier", "event_id": "flight", "event_time": "departs_at_ms"},
  "fields": [
    {"name": "flight", "type": "string"},
    {"name": "carrier", "type": "string"},
    {"name": "tail", "type": ["null", "string"], "default": null},
    {"name": "departs_at_ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "miles", "type": ["null", "double"], "default": null},
    {"name": "seats", "type": ["null", "long"], "default": null}
  ]
}
"""

REPO = """
import os
from datetime import timedelta
from feast import Entity, FeatureService, Field, FileSource, KafkaSource, RequestSource, ValueType
from feast.aggregation import Aggregation
from feast.data_format import AvroFormat, ParquetFormat
from feast.on_demand_feature_view import on_demand_feature_view
from feast.stream_feature_view import StreamFeatureView
from feast.types import Float64, Int64

carrier = Entity(name="carrier", join_keys=["carrier"], value_type=ValueType.STRING)
plane = Entity(name="plane", join_keys=["tail"], value_type=ValueType.STRING)

def view(name, entity, topic, time, *aggregations):
    log = FileSource(
        name=name, path=os.environ["MILLSTREAM_STATE_DIR"] + f"/offline/{name}/*/*.parquet",
        file_format=ParquetFormat(), timestamp_field="event_timestamp", created_timestamp_column="created",
    )
    return StreamFeatureView(
        name=name, entities=[entity], ttl=timedelta(days=9), timestamp_field=time,
        source=KafkaSource(name=f"{name}_events", topic=topic, timestamp_field=time, message_format=AvroFormat(""),
                           batch_source=log),
        aggregations=[Aggregation(column=c, function=f, time_window=timedelta(days=d), name=n)
                      for n, c, f, d, _ in aggregations],
        schema=[Field(name=n, dtype=dtype) for n, *_, dtype in aggregations],
    )

carriers = view("carriers", carrier, "flights", "departs_at_ms",
                ("flights_1d", "flight", "count", 1, Int64), ("miles_3d", "miles", "mean", 3, Float64))
planes = view("planes", plane, "flights", "departs_at_ms",
              ("flights_3d", "flight", "count", 3, Int64), ("seats_3d", "seats", "max", 3, Int64))
delays = view("delays", plane, "examples", "label_known_at_ms", ("late_3d", "label", "mean", 3, Float64))

@on_demand_feature_view(
    sources=[RequestSource(name="plan", schema=[Field(name="miles", dtype=Float64)])],
    schema=[Field(name="long_haul", dtype=Int64)], mode="python",
)
def haul(inputs):
    return {"long_haul": [None if miles is None else int(miles > 1500) for miles in inputs["miles"]]}

lateness = FeatureService(
    name="lateness", features=[carriers, planes, delays, haul],
    tags={"baseline": "CASE WHEN miles > 1000 THEN 0.75 ELSE 0.25 END", "threshold": "0.5",
          "decision_above": "late", "decision_below": "punctual"},
)
"""
ONLINE_MODEL = """
from river import linear_model, preprocessing

model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
"""
HOUR_MS = 3_600_000
COUNT, PAST = 240, 160


def flights(seed: int = 4) -> tuple[Batch, np.ndarray]:
    """Return flights, an hour apart, and whether each was late."""
    rng = np.random.default_rng(seed)

    def texts(values: list[str]) -> np.ndarray:
        return np.array(values, dtype=object)

    columns = {
        "flight": texts([f"UA{i:04}/é" for i in range(COUNT)]),
        "carrier": texts(rng.choice(["UA", "B6", "9E", "ö"], COUNT).tolist()),
        "tail": texts(rng.choice([f"N{i}UA" for i in range(9)], COUNT).tolist()),
        "departs_at_ms": 1_541_030_400_000 + np.arange(COUNT) * HOUR_MS,
        "miles": rng.integers(90, 2500, COUNT).astype(np.float64),
        "seats": rng.integers(20, 300, COUNT) + 2**53,
    }
    nulls = {name: rng.random(COUNT) < 0.15 for name in ("tail", "miles", "seats")}
    return Batch(COUNT, columns, nulls), (rng.random(COUNT) < 0.4).astype(np.float64)


@pytest.fixture(scope="module")
def airport(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The repo and the contract of flights; engine contracts are those that are shipped."""
    folder = tmp_path_factory.mktemp("airport")
    for name, text in {
        "repo/feature_store.yaml": STORE.format(project="airport"),
        "repo/definitions.py": REPO,
        "repo/online_model.py": ONLINE_MODEL,
        "schemas/flights.avsc": CONTRACT,
    }.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MILLSTREAM_STATE_DIR", str(folder / "state"))
        patch.setenv("MILLSTREAM_FEATURE_REPO", str(folder / "repo"))
        patch.setenv("MILLSTREAM_SCHEMAS_DIR", str(folder / "schemas"))
        patch.setenv("MILLSTREAM_CHECKPOINT_INTERVAL_MS", "500")
        # One partition: events arrive at the second stage in order of time, as a replay has them.
        patch.setenv("MILLSTREAM_PARTITIONS", "1")
        yield load_settings()


@pytest.fixture
def settings(airport: Settings) -> Iterator[Settings]:
    """The same with servers of its own, as this test owns the real topics."""
    servers.start(airport, print)
    yield airport
    servers.stop(airport)


def replayed(assembly: Assembly, batch: Batch, late: np.ndarray) -> Batch:
    """Return what one replay of past and live flights scores, of which only those of the past have labels."""
    known = np.where(np.arange(COUNT) < PAST, late, np.nan)
    return History(assembly).feed(batch, Labels.after(known, batch.columns["departs_at_ms"], 6 * HOUR_MS)).scored


def test_stages_that_were_seeded_go_on_as_one_replay(airport: Settings) -> None:
    assembly = assemble(airport)
    batch, late = flights()
    past, live = np.arange(PAST), np.arange(PAST, COUNT)
    history = History(assembly)
    history.feed(batch.take(past), Labels.after(late[past], batch.columns["departs_at_ms"][past], 6 * HOUR_MS))
    history.tell_all()
    broker = MemoryBroker(1, now_ms=1_600_000_000_000)
    for stage in history.replay.stages:
        for _ in range(2):  # the second replaces the first
            seed(MemoryLog(broker, "seed"), stage, 1, {0: dict.fromkeys(stage.inputs, 0)})
    values = RecordWriter(assembly.contract.schema).encode(batch.take(live))
    broker.append(Output("flights", as_text(batch.columns["carrier"][live]), values))
    for plan in assembly.topology.stages:
        stage, limits = assembly.stage(plan, assembly.resolver()), LoopLimits(7, 1)
        loop = StageLoop(stage, MemoryLog(broker, plan.name), limits, DeadLetterLimit(1.0, 1), None, Unobserved())
        loop.start()
        while batches := loop.poll(0.0):
            loop.handle(batches)
    records = broker.records(SCORED, 0, 0, broker.log(SCORED)[0].end)
    reader = RecordReader(assembly.topology.stages[-1].output_schema, assembly.resolver())
    answered = reader.decode(records.values, 1 << 30).batch
    expected = served(replayed(assembly, batch, late), assembly)
    ids = batch.columns["flight"][live].tolist()
    assert served(answered, assembly) == {flight: expected[flight] for flight in ids}
    assert answered.is_null("planes__flights_3d").sum() == batch.nulls["tail"][live].sum() > 5
    assert answered.is_null("delays__late_3d").sum() < len(live) / 2, "labels of the past are in the windows"


def decoded(assembly: Assembly, kafka: dict[str, str], topic: str) -> Batch:
    schemas = {SCORED: assembly.topology.stages[-1].output_schema, EXAMPLES: assembly.examples_schema}
    schema = schemas.get(topic) or assembly.contracts[topic].schema
    values = [each.value() for each in committed(kafka, topic)]
    return RecordReader(schema, assembly.resolver()).decode(values, 1 << 30).batch


def served(batch: Batch, assembly: Assembly) -> dict[str, list[Any]]:
    """Return features and answer by flight; None at nulls."""
    names = [*(name for name, _ in assembly.declaration.service.features), "score", "arm", "decision"]
    cells = [
        [None if null else value for null, value in zip(batch.is_null(name), batch.columns[name].tolist(), strict=True)]
        for name in names
    ]
    return dict(zip(batch.columns["flight"].tolist(), map(list, zip(*cells, strict=True)), strict=True))


def label_output(assembly: Assembly, flight_ids: np.ndarray, label: np.ndarray, known_at_ms: np.ndarray) -> Output:
    n = len(flight_ids)
    columns = {
        "event_id": flight_ids,
        "label": label,
        "known_at_ms": known_at_ms,
        "source": np.full(n, "tower", dtype=object),
        "kind": np.full(n, "new", dtype=object),
    }
    values = RecordWriter(assembly.contracts[LABELS].schema).encode(Batch(n, columns))
    return Output(LABELS, as_text(flight_ids), values)


@pytest.mark.kafka
@pytest.mark.redis
def test_flights_with_labels_learner_and_monitors(settings: Settings, tmp_path: Path) -> None:
    kafka, cli, app = servers.resolve(settings).kafka, CliRunner(), program()
    assembly = initialise(settings, print)
    batch, late = flights()
    times_ms, ids = batch.columns["departs_at_ms"], batch.columns["flight"]
    past, live = np.arange(PAST), np.arange(PAST, COUNT)
    history = tmp_path / "past.jsonl"
    fields = [field.name for field in assembly.contract.schema.fields]
    rows = pl.DataFrame({name: batch.columns[name].tolist() for name in fields}).to_dicts()
    with history.open("w") as lines:
        for row in past.tolist():
            told = {n: None if n in batch.nulls and batch.nulls[n][row] else v for n, v in rows[row].items()}
            lines.write(json.dumps({**told, "late": late[row]}) + "\n")
    seeding = ["features", "seed", str(history), "--label-column", "late", "--label-delay", "6h"]
    for _ in range(2):  # it may be repeated until the stages have started
        seeded = cli.invoke(app, seeding, catch_exceptions=False)
        assert seeded.exit_code == 0, seeded.output
        assert "160 of 160 events" in seeded.output
    producer, deliveries = open_producer(kafka), Deliveries()

    def send(*outputs: Output) -> None:
        for output in outputs:
            tags = range(deliveries.next_tag, deliveries.next_tag + len(output.keys))
            publish(producer, output.topic, list(output.keys), list(output.values), deliveries=deliveries, tags=tags)
        drain(producer, deliveries)

    workers = Workers(Path(settings.state_dir))
    try:
        workers.start("all")
        values = RecordWriter(assembly.contract.schema).encode(batch.take(live))
        send(Output("flights", as_text(batch.columns["carrier"][live]), values))
        wait_until(lambda: len(committed(kafka, SCORED)) == len(live), 240, workers)
        expected = replayed(assembly, batch, late)
        scored = decoded(assembly, kafka, SCORED)
        assert served(scored, assembly) == {
            flight: cells for flight, cells in served(expected, assembly).items() if flight in set(ids[live].tolist())
        }
        assert scored.is_null("planes__flights_3d").sum() == batch.nulls["tail"][live].sum() > 5
        assert scored.is_null("delays__late_3d").sum() < len(live) / 2, "labels of the past are in the windows"
        assert len(committed(kafka, PREDICTIONS)) == len(live)
        # Labels come back; among them one that is none, and an example whose score is no probability.
        send(label_output(assembly, ids[live], late[live], times_ms[live] + HOUR_MS))
        send(label_output(assembly, ids[live][:1], np.array([17.0]), times_ms[live][:1] + HOUR_MS))
        wait_until(lambda: len(committed(kafka, EXAMPLES)) >= len(live), 120, workers)
        example = decoded(assembly, kafka, EXAMPLES).take(np.array([0]))
        wrong = example.with_columns({"score": np.array([37.5])})
        send(Output(EXAMPLES, [b"wrong"], RecordWriter(assembly.examples_schema).encode(wrong)))

        def learnt() -> bool:
            found = [each.value() or b"" for each in committed(kafka, SNAPSHOTS)]
            return any(b'"examples": 80' in each for each in found)

        wait_until(learnt, 120, workers)
        wait_until(lambda: len(letters(assembly, kafka)) >= 2, 120, workers)
        assert letters(assembly, kafka) == {
            ("labels", "not-allowed", "label", "label is 17.0; allowed: 0 or 1"),
            ("examples", "unusable", "score", "score is 37.5; allowed: at most 1"),
        }
        wait_until(lambda: labelled(assembly, kafka) == len(live), 120, workers)
        assert committed(kafka, MEASURES)
        running = cli.invoke(app, seeding)
        assert "still have members" in str(running.exception)
        assert workers.stop("all") == 0
        consumed = cli.invoke(app, seeding)
        assert "has consumed flights[" in str(consumed.exception)
    finally:
        workers.end()


def letters(assembly: Assembly, kafka: dict[str, str]) -> set[tuple[str, ...]]:
    schema = assembly.contracts[DEAD_LETTERS].schema
    found = read_dead_letters(kafka, schema, assembly.resolver(), pytest.fail)
    return {(each.topic, each.reason, each.field, each.detail) for each in found}


def labelled(assembly: Assembly, kafka: dict[str, str]) -> int:
    """Return how many examples the newest figures of the answers count, over all days."""
    newest = {each.key(): each.value() for each in committed(kafka, QUALITY)}
    reader = RecordReader(assembly.contracts[QUALITY].schema, assembly.resolver())
    figures = reader.decode(list(newest.values()), 1 << 30).batch
    kept: dict[tuple[Any, ...], int] = {}
    names = ("day_start_ms", "protocol", "arm", "metric", "maturity_days", "examples")
    for day, protocol, arm, metric, maturity, examples in zip(
        *(figures.columns[n].tolist() for n in names), strict=True
    ):
        if (protocol, arm, metric, maturity) == ("delayed", "answer", "brier", settings_horizon(assembly)):
            kept[day,] = examples
    return sum(kept.values())


def settings_horizon(assembly: Assembly) -> int:
    return assembly.settings.label_horizon_days
