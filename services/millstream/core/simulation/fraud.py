"""The three fraud scenarios of the Fraud Detection Handbook's simulator; later ones overwrite earlier ones.

References
----------
.. [1] Le Borgne et al., "Practical Handbook", 2022, chapter 3, "Fraud scenarios generation".
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

LARGE_EUR = 220.0
TERMINALS_PER_DAY, TERMINAL_DAYS = 2, 28
CUSTOMERS_PER_DAY, CUSTOMER_DAYS = 3, 14
AMOUNT_FACTOR = 5.0


def commit_frauds(
    days: NDArray[np.int64],
    customers: NDArray[np.int64],
    terminals: NDArray[np.int64],
    amounts: NDArray[np.float64],
    population: tuple[int, int],
    stream: Callable[[int], int],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Add frauds to a genuine stream.

    1: any amount above 220 EUR. 2: each day two terminals are compromised, and all they do for 28 days is fraud.
    3: each day three customers are; a random third of what they spend in 14 days becomes five times as much.

    Parameters
    ----------
    days : int64 ndarray of shape (n,)
        Day of each transaction, from 0, ascending.
    customers, terminals : int64 ndarray of shape (n,)
        Ids, each below its population.
    amounts : float64 ndarray of shape (n,)
        EUR.
    population : tuple of int
        Number of customers and of terminals.
    stream : callable int -> int
        Generator seed that stands where the book seeds with a day.

    Returns
    -------
    amounts : float64 ndarray of shape (n,)
        A copy, raised by scenario 3 (more than once where it struck more than once).
    scenarios : int64 ndarray of shape (n,)
        0 to 3; 0 = genuine.
    """
    amounts = amounts.copy()
    scenarios = (amounts > LARGE_EUR).astype(np.int64)
    last_day = int(days[-1]) if len(days) else 0  # the book's loop ends before the last day

    for day in range(last_day):
        start, end = np.searchsorted(days, (day, day + TERMINAL_DAYS))
        chosen = _drawn(stream(day), population[1], TERMINALS_PER_DAY)
        scenarios[start:end][np.isin(terminals[start:end], chosen)] = 2

    for day in range(last_day):
        start, end = np.searchsorted(days, (day, day + CUSTOMER_DAYS))
        chosen = _drawn(stream(day), population[0], CUSTOMERS_PER_DAY)
        spent = (start + np.flatnonzero(np.isin(customers[start:end], chosen))).tolist()
        stolen = random.Random(stream(day)).sample(spent, k=len(spent) // 3)
        amounts[stolen] *= AMOUNT_FACTOR
        scenarios[stolen] = 3
    return amounts, scenarios


def _drawn(seed: int, population: int, count: int) -> NDArray[np.int64]:
    """Draw without replacement as ``pandas.DataFrame.sample(n=count, random_state=seed)`` does."""
    return np.random.RandomState(seed).permutation(population)[:count]
