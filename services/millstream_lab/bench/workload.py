"""The benchmark's events: seeded, with the reference domain's key and amount distributions, encoded beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.schema import Schema
from millstream.core.batch import Array, Batch
from millstream.core.text import as_text

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
    customers, terminals, times_ms : int64 ndarray of shape (n,)
    amounts : float64 ndarray of shape (n,)
        EUR, to the cent.
    keys, values : list of bytes of length n
        Message keys and Avro records.
    """

    customers: NDArray[np.int64]
    terminals: NDArray[np.int64]
    times_ms: NDArray[np.int64]
    amounts: NDArray[np.float64]
    keys: list[bytes]
    values: list[bytes]

    def __len__(self) -> int:
        return len(self.keys)


def generate(
    events: int,
    schema: Schema,
    seed: int,
    *,
    customers: int = CUSTOMERS,
    terminals: int = TERMINALS,
    events_per_day: float = EVENTS_PER_DAY,
    each_once: bool = False,
) -> Workload:
    """Return ``events`` transactions, each customer with a rate and a mean amount of its own.

    Parameters
    ----------
    schema : Schema
        Of the contract ``transactions``.
    each_once : bool
        Have the first ``customers`` events of as many different customers, so that none is left out.
    """
    random = np.random.default_rng(seed)
    rates = random.uniform(0, 4, customers)
    means = random.uniform(5, 100, customers)
    chosen = random.choice(customers, events, p=rates / rates.sum()).astype(np.int64)
    if each_once:
        first = min(customers, events)
        chosen[:first] = random.permutation(customers)[:first]
    times_ms = START_MS + np.sort(random.integers(0, max(1, int(events * DAY_MS / events_per_day)), events))
    amounts = np.abs(random.normal(means[chosen], means[chosen] / 2)).round(2).astype(np.float64)
    where = random.integers(0, terminals, events)
    columns: dict[str, Array] = {
        "transaction_id": np.arange(events, dtype=np.int64),
        "customer_id": chosen,
        "terminal_id": where,
        "event_time_ms": times_ms,
        "amount": amounts,
    }
    values = RecordWriter(schema).encode(Batch(events, columns))
    return Workload(chosen, where, times_ms, amounts, as_text(chosen), values)
