"""How much the ledger takes: events per second, memory and disk, with as many predictions pending as wanted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from millstream.adapters.files.ledger_store import LedgerMemory, RocksLedgerStore
from millstream.adapters.telemetry.process_usage import own_rss_bytes
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.schema import Field, Schema
from millstream.core.batch import Batch, Rows
from millstream.core.contracts import Contract
from millstream.core.ledger.resolution import Policy
from millstream.runtime.flow import Flow
from millstream.runtime.log.records import Records
from millstream.stages.join.contract import examples_schema
from millstream.stages.join.step import Join

_FEATURES = 25
_EVENT_GAP_MS = 1_000
_SCRAMBLE = 0x9E3779B97F4A7C15  # odd: distinct numbers stay distinct modulo 2**63, in an order that defeats caches


@dataclass(frozen=True, slots=True)
class Measured:
    """What a ledger took, one core's work; decoding and encoding of records included, Kafka not.

    Parameters
    ----------
    pending : int
        Predictions held while joining.
    fill_per_s : float
        Predictions per second while they came in without labels.
    join_per_s : float
        Records per second, half of them new predictions and half labels of random old ones, each of which becomes an
        example.
    fill_rss_bytes : tuple of int
        Resident memory of the process after each tenth of the filling.
    join_rss_bytes : int
        And at the end.
    disk_bytes : int
        Size of the store's files at the end.
    record_bytes : int
        Size of one scored record.
    """

    pending: int
    fill_per_s: float
    join_per_s: float
    fill_rss_bytes: tuple[int, ...]
    join_rss_bytes: int
    disk_bytes: int
    record_bytes: int


def measure(
    folder: Path,
    envelope: Contract,
    labels: Contract,
    pending: int = 1_000_000,
    joins: int = 200_000,
    batch: int = 5_000,
    memory_bytes: int = 256 << 20,
    progress: Callable[[float], None] = lambda share: None,
) -> Measured:
    """Fill a ledger in an empty folder and join labels to it.

    Event ids are scrambled, so that neighbours in time are strangers on disk: the worst case for caches.

    Parameters
    ----------
    envelope, labels : Contract
        ``schemas/examples.avsc`` and ``schemas/labels.avsc``.
    batch : int
        Records of each topic in a micro-batch.
    progress : callable
        Told the share done, in [0, 1].
    """
    fields = [Field("event", "long"), Field("event_time_ms", "long")]
    fields += [Field(f"feature_{i}", "double", nullable=True, default=None) for i in range(_FEATURES)]
    scored = Schema("measure.scored", (*fields, Field("score", "double"), Field("model", "string")))
    readers = [RecordReader(schema, lambda _id: None) for schema in (scored, labels.schema)]
    writers = [RecordWriter(schema) for schema in (scored, labels.schema)]
    store = RocksLedgerStore(folder, LedgerMemory(memory_bytes))
    examples = RecordWriter(examples_schema(scored, envelope))
    join = Join(store, Policy(), readers[0], examples, "event", "event_time_ms")
    draw = np.random.default_rng(1)
    nothing = np.zeros(0, dtype=np.int64)
    sizes: list[int] = []

    def take(numbers: Rows, labelled: Rows) -> float:
        values = [
            writers[0].encode(_predictions(numbers, draw)),
            writers[1].encode(_labels(labelled, draw)),
        ]
        sizes[:] = [len(values[0][0])]
        started_s = time.perf_counter()
        flows = [_flow(reader, each) for reader, each in zip(readers, values, strict=True)]
        joined = join.process(flows[0], flows[1], 0)
        if len(joined.examples) != len(labelled):
            raise AssertionError(f"{len(joined.examples)} examples of {len(labelled)} labels")
        join.write(joined, {"scored": int(numbers[-1]) + 1})
        return time.perf_counter() - started_s

    take(np.arange(batch, dtype=np.int64), nothing)
    filling_s, resident = 0.0, []
    starts = range(batch, pending, batch)
    for i, start in enumerate(starts):
        filling_s += take(np.arange(start, start + batch, dtype=np.int64), nothing)
        if i * 10 // len(starts) != (i + 1) * 10 // len(starts):
            resident.append(own_rss_bytes())
        progress(start / (pending + joins))
    old = draw.permutation(pending)[:joins].astype(np.int64)
    joining_s = 0.0
    for start in range(0, joins, batch):
        fresh = np.arange(pending + start, pending + start + batch, dtype=np.int64)
        joining_s += take(fresh, old[start : start + batch])
        progress((pending + start) / (pending + joins))
    found = Measured(
        pending,
        len(starts) * batch / filling_s,
        2 * joins / joining_s,
        tuple(resident),
        own_rss_bytes(),
        store.disk_bytes(),
        sizes[0],
    )
    store.close()
    return found


def _event_ids(numbers: Rows) -> Rows:
    return ((numbers.astype(np.uint64) * np.uint64(_SCRAMBLE)) >> np.uint64(1)).astype(np.int64)


def _predictions(numbers: Rows, draw: np.random.Generator) -> Batch:
    n = len(numbers)
    features: NDArray[np.float64] = np.round(draw.gamma(2, 30, (_FEATURES, n)), 2)
    columns = {f"feature_{i}": features[i] for i in range(_FEATURES)}
    model = np.full(n, "fraud", dtype=object)
    times_ms = numbers * _EVENT_GAP_MS
    return Batch(
        n,
        {"event": _event_ids(numbers), "event_time_ms": times_ms, "score": draw.random(n), "model": model, **columns},
    )


def _labels(numbers: Rows, draw: np.random.Generator) -> Batch:
    n = len(numbers)
    ids = np.empty(n, dtype=object)
    ids[:] = [str(each) for each in _event_ids(numbers).tolist()]
    columns = {
        "event_id": ids,
        "label": (draw.random(n) < 0.01).astype(np.float64),
        "known_at_ms": numbers * _EVENT_GAP_MS + 7 * 86_400_000,
        "source": np.full(n, "investigator", dtype=object),
        "kind": np.full(n, "new", dtype=object),
    }
    return Batch(n, columns)


def _flow(reader: RecordReader, values: list[bytes]) -> Flow:
    n = len(values)
    zeros = np.zeros(n, dtype=np.int64)
    decoded = reader.decode(values, 1 << 20)
    return Flow(Records("", zeros, zeros, zeros, [None] * n, values), decoded.rows, decoded.batch)
