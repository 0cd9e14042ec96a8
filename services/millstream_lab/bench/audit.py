"""Answers of a Millstream job compared with a direct computation: counts, features, scores."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import fastavro
import numpy as np
from numpy.typing import NDArray

from millstream.adapters.kafka.client import read_committed
from millstream.core.avro.schema import Schema
from millstream.core.declaration import View
from millstream.errors import Stop
from millstream.topology import DEAD_LETTERS, SCORED, StagePlan
from millstream_lab.bench.stack import Job, partitions_of
from millstream_lab.bench.workload import Workload

SAMPLE = 300
_FRAMING_BYTES = 10


@dataclass(frozen=True)
class OutputCounts:
    """What a topic holds: outputs of distinct events, and of the same ones again."""

    events: int
    doubled: int


def sample_of(start: int, end: int, size: int = SAMPLE) -> frozenset[int]:
    """Return events spread over [start, end)."""
    return frozenset(np.unique(np.linspace(start, end - 1, size).astype(int)).tolist()) if end > start else frozenset()


def count(
    job: Job, topic: str, events: int, keep: frozenset[int] = frozenset()
) -> tuple[OutputCounts, dict[int, bytes]]:
    """Read a topic keyed by event id from its beginning; return what it holds, and the records of some events."""
    seen = np.zeros(events, dtype=np.int64)
    kept: dict[int, bytes] = {}
    for partition in range(partitions_of(job, topic)):
        for messages in read_committed(job.kafka, topic, partition, 0, None):
            ids = np.fromiter((int(m.key() or b"-1") for m in messages), dtype=np.int64, count=len(messages))
            np.add.at(seen, ids, 1)
            if keep:
                kept |= {e: m.value() or b"" for e, m in zip(ids.tolist(), messages, strict=True) if e in keep}
    return OutputCounts(int((seen > 0).sum()), int((seen - 1).clip(0).sum())), kept


def check(job: Job, workload: Workload, events: int, start: int = 0) -> list[str]:
    """Return what is wrong with the scored records of the events published so far, [0, ``events``).

    None may be missing, none doubled under exactly-once, none a dead letter; of a sample from ``start`` on, each window
    feature must be the brute-force one, and the score LightGBM's for the features as recorded.
    """
    wanted = sample_of(start, events)
    counted, kept = count(job, SCORED, events, wanted)
    wrong = complaints(SCORED, counted, events, job.stack.guarantee)
    letters = sum(
        len(messages)
        for partition in range(partitions_of(job, DEAD_LETTERS))
        for messages in read_committed(job.kafka, DEAD_LETTERS, partition, 0, None)
    )
    if letters:
        wrong.append(f"{letters:,} sound events became dead letters")
    return wrong + wrong_records(job, workload, {event: kept[event] for event in sorted(wanted & kept.keys())})


def complaints(topic: str, counted: OutputCounts, events: int, guarantee: str) -> list[str]:
    """Return a sentence for events missing from a topic, and for doubled ones if none may be."""
    wrong = [f"{topic}: {events - counted.events:,} of {events:,} events are missing"] * (counted.events < events)
    return wrong + [f"{topic}: {counted.doubled:,} are doubled"] * (counted.doubled > 0 and guarantee == "exactly_once")


def wrong_records(job: Job, workload: Workload, kept: Mapping[int, bytes]) -> list[str]:
    """Return a sentence per scored record whose features or score are not what they must be."""
    import lightgbm

    booster = lightgbm.Booster(model_file=str(job.model_file))
    columns = [column for column, _ in job.assembly.declaration.service.features]
    stages = job.assembly.topology.stages
    parsed = _parsed(stages[-1].output_schema)
    records = {event: _read(value, parsed) for event, value in kept.items()}
    wrong = []
    for stage in stages:
        histories = _histories(job, stage, workload, records)
        for event, record in records.items():
            if event not in histories:
                wrong.append(f"event {event}: in {SCORED}, but never in {stage.input}")
                continue
            for view in stage.views:
                expected = features_of(view, workload, histories[event])
                got = tuple(float("nan") if record[c] is None else float(record[c]) for c in view.columns)
                if not np.allclose(got, expected, rtol=1e-9, atol=0, equal_nan=True):
                    wrong.append(f"event {event}: {view.name} is {got}, should be {expected}")
    if records:
        rows = np.array([[np.nan if r[c] is None else float(r[c]) for c in columns] for r in records.values()])
        scores = booster.predict(rows, num_threads=1)
        for (event, record), score in zip(records.items(), scores, strict=True):
            if not np.isclose(record["score"], score, rtol=1e-9, atol=0):
                wrong.append(f"event {event}: score is {record['score']} by {record['arm']}, should be {score}")
    return wrong


def features_of(view: View, workload: Workload, history: NDArray[np.int64]) -> tuple[float, ...]:
    """Return the view's features after the events of ``history``, the last of which is the current one.

    Raises
    ------
    Stop
        The view has a function that this oracle does not know.
    """
    now_ms = int(workload.times_ms[history[-1]])
    times_ms, amounts = workload.times_ms[history], workload.amounts[history]
    values = []
    for aggregate in view.aggregates:
        inside = (times_ms > now_ms - aggregate.window_ms) & (times_ms <= now_ms)
        if aggregate.function == "count":
            values.append(float(inside.sum()))
        elif aggregate.function == "mean" and aggregate.column == "amount":
            values.append(float(amounts[inside].mean()))
        else:
            raise Stop(f"the benchmark checks count and mean of amount, not {aggregate.function} in {view.name}")
    return tuple(values)


def _histories(job: Job, stage: StagePlan, workload: Workload, events: Iterable[int]) -> dict[int, NDArray[np.int64]]:
    """Return, for each event, its entity's events in the order in which the stage got them, up to the event itself."""
    wanted = set(events)
    if stage.first:
        keys = workload.customers
        return {event: np.flatnonzero(keys[: event + 1] == keys[event]) for event in wanted}
    # Between the hops, events of several partitions are shuffled into an order that only the topic knows.
    keys = workload.terminals
    names = {str(keys[event]).encode() for event in wanted}
    arrived: dict[bytes, list[int]] = {name: [] for name in names}
    parsed = _parsed(stage.input_schema)
    event_id = job.assembly.contract.event_id
    for partition in range(partitions_of(job, stage.input)):
        for messages in read_committed(job.kafka, stage.input, partition, 0, None):
            for message in messages:
                name = message.key() or b""
                if name in names:
                    arrived[name].append(int(_read(message.value() or b"", parsed)[event_id]))
    histories = {}
    for event in wanted:
        mine = arrived[str(keys[event]).encode()]
        if event in mine:
            histories[event] = np.array(mine[: mine.index(event) + 1])
    return histories


def _parsed(schema: Schema) -> Any:
    return fastavro.parse_schema(json.loads(schema.to_json()))


def _read(value: bytes, parsed: Any) -> dict[str, Any]:
    record: Any = fastavro.schemaless_reader(BytesIO(value[_FRAMING_BYTES:]), parsed)
    return dict(record)
