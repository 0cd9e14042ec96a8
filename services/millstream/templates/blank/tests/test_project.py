"""The project in memory, without a server."""

from pathlib import Path

from millstream.testing import replay

PROJECT = Path(__file__).parents[1]
MINUTE_MS = 60_000


def event(name: str, minute: int, value: float) -> dict[str, object]:
    return {
        "id": name,
        "device_id": "d1",
        "event_time_ms": 1_767_225_600_000 + minute * MINUTE_MS,
        "value": value,
    }


def test_an_event_far_above_the_mean_of_its_device_is_reviewed() -> None:
    run = replay([event("e1", 0, 10.0), event("e2", 10, 20.0), event("e3", 20, 90.0)], PROJECT)
    assert [row["device_activity__mean_value_1h"] for row in run.scored] == [10.0, 15.0, 40.0]
    assert [row["decision"] for row in run.scored] == ["accept", "accept", "review"]


def test_an_event_that_does_not_fit_the_contract_is_dead_lettered() -> None:
    run = replay([event("e1", 0, float("nan"))], PROJECT)
    assert [row["reason"] for row in run.dead_letters] == ["not-finite"]


def test_crashes_and_rebalances_change_nothing() -> None:
    rows = [event(f"e{n}", n, float(n)) for n in range(40)]
    run = replay(rows, PROJECT, batch_records=7)
    assert replay(rows, PROJECT, batch_records=7, seed=1, crashes=3, rebalances=2) == run
