"""The simulator against plain NumPy and Python generators, and against the digest of the published data set."""

import hashlib
import random

import numpy as np
import pytest

from millstream.core.batch import Batch
from millstream.core.simulation.published_order import published_order
from millstream.core.simulation.simulate import DAY_S, Simulation, simulate
from millstream_lab.simulation.row_differences import RowDifferences, row_differences

PUBLISHED_SHA256 = "5894792ee315c8650a3d65c024cf36991b21f503775e0bb0dccf715962b25abf"
SMALL = Simulation(customers=40, terminals=300, days=20, radius=12.0)


def book_rows(simulation: Simulation) -> list[tuple[int, int, int, float]]:
    """Draw genuine transactions with the very generators the book names, one value at a time."""
    homes = np.random.RandomState(simulation.stream(0))
    profiles = [
        (homes.uniform(0, 100), homes.uniform(0, 100), homes.uniform(5, 100), homes.uniform(0, 4))
        for _ in range(simulation.customers)
    ]
    sites = np.random.RandomState(simulation.stream(1))
    terminals = [(sites.uniform(0, 100), sites.uniform(0, 100)) for _ in range(simulation.terminals)]
    rows = []
    for customer, (x, y, mean, per_day) in enumerate(profiles):
        near = [i for i, (a, b) in enumerate(terminals) if np.sqrt((x - a) ** 2 + (y - b) ** 2) < simulation.radius]
        draw = np.random.RandomState(simulation.stream(customer))
        pick = random.Random(simulation.stream(customer))
        for day in range(simulation.days):
            for _ in range(draw.poisson(per_day)):
                second = int(draw.normal(DAY_S / 2, 20_000))
                if 0 < second < DAY_S:
                    amount = draw.normal(mean, mean / 2)
                    if amount < 0:
                        amount = draw.uniform(0, mean * 2)
                    if near:
                        rows.append((day * DAY_S + second, customer, pick.choice(near), float(np.round(amount, 2))))
    return rows


@pytest.mark.parametrize("seed", [0, 7])
def test_draws_are_the_books(seed: int) -> None:
    simulation = Simulation(customers=40, terminals=300, days=20, radius=12.0, seed=seed)
    stream = simulate(simulation).columns
    genuine = stream["fraud_scenario"] < 3  # scenario 3 changes amounts
    made = sorted(
        zip(
            (stream["event_time_ms"] - simulation.start_ms) // 1000,
            stream["customer_id"],
            stream["terminal_id"],
            strict=True,
        )
    )
    expected = book_rows(simulation)
    assert made == sorted(row[:3] for row in expected)
    amounts = {row[:3]: row[3] for row in expected}
    for i in np.flatnonzero(genuine):
        key = (stream["event_time_ms"][i] - simulation.start_ms) // 1000, stream["customer_id"][i]
        assert amounts[(*key, stream["terminal_id"][i])] == stream["amount"][i]


def test_events_are_numbered_in_time_order() -> None:
    stream = simulate(SMALL).columns
    assert (np.diff(stream["event_time_ms"]) >= 0).all()
    assert stream["transaction_id"].tolist() == list(range(len(stream["amount"])))
    assert (stream["is_fraud"] == (stream["fraud_scenario"] > 0)).all()


def test_a_compromised_terminal_is_fraud_for_28_days() -> None:
    simulation = Simulation(customers=300, terminals=50, days=40, radius=20.0)
    stream = simulate(simulation).columns
    first = np.random.RandomState(5).permutation(50)[:2]
    day = (stream["event_time_ms"] - simulation.start_ms) // (DAY_S * 1000)
    at_terminal = np.isin(stream["terminal_id"], first) & (day >= 5) & (day < 33)
    assert at_terminal.sum() > 50
    assert (stream["fraud_scenario"][at_terminal] >= 2).all()


def test_seeds_give_different_streams_and_the_same_one_twice() -> None:
    other = Simulation(customers=40, terminals=300, days=20, radius=12.0, seed=1)
    first, again, second = simulate(SMALL), simulate(SMALL), simulate(other)
    assert row_differences(first, again).by_position == 0
    assert row_differences(first, second).only_ours > 0.9 * first.length


def test_a_world_without_reachable_terminals_is_empty() -> None:
    assert simulate(Simulation(customers=3, terminals=1, days=2, radius=1e-6)).length == 0


def test_published_order_sorts_and_differs_from_a_stable_sort_only_within_ties() -> None:
    values = np.random.RandomState(3).randint(0, 500, size=5000)
    order = published_order(values)
    assert sorted(order.tolist()) == list(range(5000))
    assert (values[order] == np.sort(values)).all()
    assert (order != np.argsort(values, kind="stable")).any()


def test_differences_count_multiplicity_and_length() -> None:
    ours = Batch(4, {"t": np.array([1, 1, 1, 2])})
    theirs = Batch(3, {"t": np.array([1, 2, 2])})
    found = row_differences(ours, theirs)
    assert (found.by_position, found.only_ours, found.only_theirs) == (3, 2, 1)
    assert not found.same_up_to_ties


def test_a_running_number_does_not_make_equal_rows_differ() -> None:
    ours = Batch(2, {"id": np.array([0, 1]), "t": np.array([5, 5]), "x": np.array([1, 2])})
    theirs = Batch(2, {"id": np.array([0, 1]), "t": np.array([5, 5]), "x": np.array([2, 1])})
    assert row_differences(ours, theirs, ["id"]) == RowDifferences(2, 2, 2, 0, 0)


def test_the_books_parameters_give_the_published_rows() -> None:
    stream = simulate(Simulation()).columns
    assert len(stream["amount"]) == 1_754_155
    assert stream["is_fraud"].sum() == 14_681
    cents = np.rint(stream["amount"] * 100).astype("<i8")
    columns = [stream["customer_id"], stream["terminal_id"], stream["event_time_ms"], cents, stream["fraud_scenario"]]
    digest = hashlib.sha256(b"".join(column.astype("<i8").tobytes() for column in columns)).hexdigest()
    assert digest == PUBLISHED_SHA256  # taken from the published file, not from our output
