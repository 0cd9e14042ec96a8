"""A small declaration of the reference domain, made by hand: no Feast needed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from millstream.adapters.files.contracts import load_all
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.core.declaration import Aggregate, Declaration, Function, Service, View
from millstream.core.text import as_text
from millstream.derivation import derive
from millstream.runtime.clock_bound import ClockBound
from millstream.runtime.log.records import Output
from millstream.runtime.stage import Stage
from millstream.settings import load_settings
from millstream.stages.featurize.step import Featurize
from millstream.stages.validate.step import Validate
from millstream.topology import DEAD_LETTERS, Topology

DAY_MS = 86_400_000
START_MS = 1_533_081_600_000
CONTRACTS = load_all(load_settings({}))
TRANSACTIONS = CONTRACTS["transactions"]


def view(
    name: str, entity: str, functions: Sequence[Function] = ("count", "mean"), days: Sequence[int] = (1, 7)
) -> View:
    """Return a view of amount over some windows."""
    aggregates = tuple(
        Aggregate(f"{function}_{d}d", "int64" if function == "count" else "float64", "amount", function, d * DAY_MS)
        for d in days
        for function in functions
    )
    return View(name, entity, f"{entity}_id", "int64", "transactions", "event_time_ms", DAY_MS, aggregates)


def declaration(*views: View) -> Declaration:
    """Return a declaration with these views and a service that reads nothing."""
    return Declaration("cards", "transactions", views, (), (), Service("fraud", (), "0.0", 0.5, {}))


def topology(*views: View) -> Topology:
    """Return the topology of these views."""
    return derive(declaration(*views), TRANSACTIONS, CONTRACTS["scored"], CONTRACTS["examples"])


def first_stage(*views: View, max_bytes: int = 100_000, ahead_ms: int | None = None) -> Stage:
    """Return the stage of these views of customers, with another stage to follow: validate and featurize.

    With ``ahead_ms``, event times are bounded by the wall clock.
    """
    plan = topology(*views, view("terminal_activity", "terminal")).stages[0]
    return Stage(
        plan,
        Validate(RecordReader(plan.input_schema, lambda _id: None), max_bytes, TRANSACTIONS),
        Featurize(plan.views, TRANSACTIONS.event_id, TRANSACTIONS.event_time, plan.feature_time_column, "dead_letter"),
        None,
        RecordWriter(plan.output_schema),
        None,
        RecordWriter(CONTRACTS[DEAD_LETTERS].schema),
        bound=None if ahead_ms is None else ClockBound(TRANSACTIONS.event_time, ahead_ms),
    )


def events(count: int, seed: int = 1, customers: int = 20, step_ms: int = 600_000) -> Batch:
    """Return seeded transactions, a little out of order."""
    rng = np.random.default_rng(seed)
    times_ms = START_MS + np.arange(count) * step_ms + rng.integers(-3 * step_ms, 3 * step_ms, count)
    return Batch(
        count,
        {
            "transaction_id": np.arange(count),
            "customer_id": rng.integers(0, customers, count),
            "terminal_id": rng.integers(0, 2 * customers, count),
            "event_time_ms": times_ms,
            "amount": np.round(rng.uniform(1, 300, count), 2),
        },
    )


def published(batch: Batch, prefix: bytes | None = None) -> Output:
    """Return transactions as a producer would publish them, stamped with their own time; ``prefix`` is a framing."""
    stamps: list[int] = batch.columns["event_time_ms"].tolist()
    values = RecordWriter(TRANSACTIONS.schema, prefix).encode(batch)
    return Output("transactions", as_text(batch.columns["customer_id"]), values, timestamps_ms=stamps)
