"""The project in memory, without a server."""

from pathlib import Path

from millstream.testing import replay

PROJECT = Path(__file__).parents[1]
HOUR_MS = 3_600_000


def payment(number: int, hour: int, amount: float) -> dict[str, object]:
    at_ms = 1_767_225_600_000 + hour * HOUR_MS
    return {"transaction_id": number, "customer_id": 7, "terminal_id": 3, "event_time_ms": at_ms, "amount": amount}


def test_the_mean_of_a_customer_s_payments_and_the_decision() -> None:
    run = replay([payment(1, 1, 10.0), payment(2, 2, 30.0), payment(3, 3, 260.0)], PROJECT)
    assert [row["customer_activity__customer_mean_amount_1d"] for row in run.scored] == [10.0, 20.0, 100.0]
    assert [row["decision"] for row in run.scored] == ["allow", "allow", "block"]


def test_a_payment_that_does_not_fit_the_contract_is_dead_lettered() -> None:
    run = replay([payment(1, 1, -10.0)], PROJECT)
    assert [row["reason"] for row in run.dead_letters] == ["range"]


def test_crashes_and_rebalances_change_nothing() -> None:
    rows = [payment(n, n, 5.0 * n) for n in range(1, 40)]
    run = replay(rows, PROJECT, batch_records=7)
    assert replay(rows, PROJECT, batch_records=7, seed=1, crashes=3, rebalances=2) == run
