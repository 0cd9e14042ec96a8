"""The Fraud Detection Handbook's card-payment simulator, draw for draw.

Customers and terminals lie on a 100 x 100 square; a customer pays at terminals near by, at a personal rate and amount.
With the default parameters the result is the book's published data set: the same rows, order and frauds.

References
----------
.. [1] Y.-A. Le Borgne, W. Siblini, B. Lebichot, G. Bontempi, "Reproducible Machine Learning for Credit Card Fraud
   Detection - Practical Handbook", 2022, chapter 3, "Transaction data simulator".
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Array, Batch
from millstream.core.jit import kernel
from millstream.core.simulation.fraud import commit_frauds
from millstream.core.simulation.published_order import published_order

DAY_S = 86_400
BOOK_START_MS = 1_522_540_800_000  # 2018-04-01T00:00:00Z
SEEDS = 2**32
_SEED_STRIDE = 2_654_435_761  # odd, so that seeds stay distinct modulo 2**32 and their streams lie far apart
LABEL_DELAY_MS = 7 * DAY_S * 1000
_PROGRESS_EVERY = 250


@dataclass(frozen=True, slots=True)
class Simulation:
    """What to simulate; the defaults are the book's.

    Parameters
    ----------
    customers, terminals : int, >= 1
        How many there are; ids count from 0.
    days : int, >= 1
        Length of the stream.
    start_ms : int
        Midnight of the first day, milliseconds since the epoch (UTC).
    radius : float, > 0
        A customer uses terminals nearer than this, on a square of side 100.
    seed : int, in [0, 2**32)
        0 is the book's; any other gives an unrelated stream with the same statistics.
    """

    customers: int = 5000
    terminals: int = 10_000
    days: int = 183
    start_ms: int = BOOK_START_MS
    radius: float = 5.0
    seed: int = 0

    def stream(self, number: int) -> int:
        """Return the generator seed that stands where the book has ``number``, in [0, 2**32)."""
        return (self.seed * _SEED_STRIDE + number) % SEEDS


@kernel
def _spend(
    seed: int, days: int, per_day: float, mean_eur: float, std_eur: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    # Inside a kernel np.random is numba's own generator: per thread, seeded here, with numpy's legacy streams.
    np.random.seed(seed)
    capacity = int(days * per_day) + 64
    seconds = np.empty(capacity, dtype=np.int64)
    amounts = np.empty(capacity, dtype=np.float64)
    count = 0
    for day in range(days):
        for _ in range(np.random.poisson(per_day)):
            second = int(np.random.normal(DAY_S / 2, 20_000.0))
            if not 0 < second < DAY_S:
                continue
            amount = np.random.normal(mean_eur, std_eur)
            if amount < 0:
                amount = np.random.uniform(0.0, mean_eur * 2)
            if count == len(seconds):
                seconds = np.concatenate((seconds, np.empty_like(seconds)))
                amounts = np.concatenate((amounts, np.empty_like(amounts)))
            seconds[count] = day * DAY_S + second
            amounts[count] = amount
            count += 1
    return seconds[:count], amounts[:count]


def simulate(simulation: Simulation, progress: Callable[[int, int], None] | None = None) -> Batch:
    """Generate the whole stream.

    Parameters
    ----------
    simulation : Simulation
        The parameters; the result is a function of them alone.
    progress : callable (customers done, customers), optional
        Called now and then.

    Returns
    -------
    Batch
        In event-time order: ``transaction_id`` (the position), ``customer_id``, ``terminal_id``, ``event_time_ms``
        (int64), ``amount`` (float64, EUR), ``is_fraud`` (bool), ``fraud_scenario`` (int64, 0 to 3; 0 = genuine).
    """
    homes = np.random.RandomState(simulation.stream(0)).random_sample((simulation.customers, 4))
    means_eur = 5.0 + 95.0 * homes[:, 2]
    sites = 100.0 * np.random.RandomState(simulation.stream(1)).random_sample((simulation.terminals, 2))
    seconds, amounts, terminals, counts = [], [], [], []
    for customer in range(simulation.customers):
        x, y = 100.0 * homes[customer, :2]
        near = np.flatnonzero(np.sqrt((x - sites[:, 0]) ** 2 + (y - sites[:, 1]) ** 2) < simulation.radius).tolist()
        counts.append(0)
        if near:
            mean_eur, seed = float(means_eur[customer]), simulation.stream(customer)
            times, spent = _spend(seed, simulation.days, 4.0 * float(homes[customer, 3]), mean_eur, mean_eur / 2)
            choice = random.Random(seed).choice
            terminals.append(np.fromiter((choice(near) for _ in range(len(times))), np.int64, len(times)))
            seconds.append(times)
            amounts.append(spent)
            counts[-1] = len(times)
        if progress is not None and (customer + 1) % _PROGRESS_EVERY == 0:
            progress(customer + 1, simulation.customers)
    nothing = np.zeros(0, dtype=np.int64)  # lets a world without a single reachable terminal be empty, not an error
    return _assemble(
        simulation,
        np.concatenate((nothing, *seconds)),
        np.concatenate((nothing.astype(np.float64), *amounts)).round(2),
        np.repeat(np.arange(simulation.customers), counts),
        np.concatenate((nothing, *terminals)),
    )


def _assemble(
    simulation: Simulation,
    seconds: NDArray[np.int64],
    amounts: NDArray[np.float64],
    customers: NDArray[np.int64],
    terminals: NDArray[np.int64],
) -> Batch:
    """Put generated transactions in order, commit the frauds and name the columns."""
    order = published_order(seconds)
    seconds, customers, terminals = seconds[order], customers[order], terminals[order]
    population = (simulation.customers, simulation.terminals)
    amounts, scenarios = commit_frauds(
        seconds // DAY_S, customers, terminals, amounts[order], population, simulation.stream
    )
    return Batch(
        len(seconds),
        {
            "transaction_id": np.arange(len(seconds), dtype=np.int64),
            "customer_id": customers,
            "terminal_id": terminals,
            "event_time_ms": simulation.start_ms + seconds * 1000,
            "amount": amounts,
            "is_fraud": scenarios > 0,
            "fraud_scenario": scenarios,
        },
    )


def labels_of(stream: Batch, delay_ms: int = LABEL_DELAY_MS) -> Batch:
    """Return what becomes known of each transaction, and when, as ``schemas/labels.avsc`` has it.

    Parameters
    ----------
    stream : Batch
        From `simulate`.
    delay_ms : int, >= 0
        From the transaction to its label.

    Returns
    -------
    Batch
        In order of time: ``event_id`` (text), ``label`` (1.0 for fraud, else 0.0), ``known_at_ms``, ``source``.
    """
    event_ids = np.array([str(number) for number in stream.columns["transaction_id"].tolist()], dtype=object)
    columns: dict[str, Array] = {
        "event_id": event_ids,
        "label": stream.columns["is_fraud"].astype(np.float64),
        "known_at_ms": stream.columns["event_time_ms"] + delay_ms,
        "source": np.full(stream.length, "simulator", dtype=object),
    }
    return Batch(stream.length, columns)
