"""The benchmark's events: seeded, with the reference domain's key and amount distributions, encoded beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.core.avro.encode import RecordWriter
from services.core.avro.schema import Schema
from services.core.batch import Array, Batch
from services.core.text import as_text

CUSTOMERS = 5_000
TERMINALS = 10_000
START_MS = 1_522_540_800_000  # 2018-04-01, as the reference data
DAY_MS = 86_400_000
# As the reference data: 1,754,155 events in 183 days.
EVENTS_PER_DAY = 9_586


@dataclass(frozen=True)
class Workload:
    """Events in order of event time; the position of an event is its id.

    Parameters
    ----------
    customers, times_ms : int64 ndarray of shape (n,)
    amounts : float64 ndarray of shape (n,)
        EUR, to the cent.
    keys, values : list of bytes of length n
        Message keys and Avro records.
    """

    customers: NDArray[np.int64]
    times_ms: NDArray[np.int64]
    amounts: NDArray[np.float64]
    keys: list[bytes]
    values: list[bytes]

    def __len__(self) -> int:
        return len(self.keys)


def generate(events: int, schema: Schema, seed: int) -> Workload:
    """Return ``events`` transactions of `CUSTOMERS` customers, each with a rate and a mean amount of its own.

    Parameters
    ----------
    schema : Schema
        Of the contract ``transactions``.
    """
    random = np.random.default_rng(seed)
    rates = random.uniform(0, 4, CUSTOMERS)
    means = random.uniform(5, 100, CUSTOMERS)
    customers = random.choice(CUSTOMERS, events, p=rates / rates.sum()).astype(np.int64)
    times_ms = START_MS + np.sort(random.integers(0, max(1, events * DAY_MS // EVENTS_PER_DAY), events))
    amounts = np.abs(random.normal(means[customers], means[customers] / 2)).round(2).astype(np.float64)
    columns: dict[str, Array] = {
        "transaction_id": np.arange(events, dtype=np.int64),
        "customer_id": customers,
        "terminal_id": random.integers(0, TERMINALS, events),
        "event_time_ms": times_ms,
        "amount": amounts,
    }
    values = RecordWriter(schema).encode(Batch(events, columns))
    return Workload(customers, times_ms, amounts, as_text(customers), values)
