"""`millstream.testing` runs a project as live workers would, whatever happens to them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import millstream
from millstream.adapters.files.project_template import write_project
from millstream.app.replaying import replay_stages
from millstream.errors import Misconfigured
from millstream.runtime.log.memory_log import MemoryLog
from millstream.testing import Replayed, Row, replay
from millstream.testing.faults import Faults
from millstream.testing.workers import Workers, broker_for

START_MS = 1_767_225_600_000
MINUTE_MS = 60_000


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project") / "mine"
    write_project(folder, "blank")
    return folder


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project") / "cards"
    write_project(folder, "cards")
    return folder


def reports(count: int, seed: int = 3) -> list[Row]:
    """Return reports of devices, some of which are no value."""
    rng = random.Random(seed)
    return [
        {
            "id": f"e{number}",
            "device_id": f"d{rng.randint(0, 6)}",
            "event_time_ms": START_MS + number * MINUTE_MS,
            "value": rng.choice([float("nan"), *(round(rng.uniform(0, 99), 2) for _ in range(9))]),
        }
        for number in range(count)
    ]


def payments(count: int) -> list[Row]:
    rng = random.Random(5)
    return [
        {
            "transaction_id": number,
            "customer_id": rng.randint(1, 9),
            "terminal_id": rng.randint(1, 5),
            "event_time_ms": START_MS + number * MINUTE_MS,
            "amount": round(rng.uniform(1, 300), 2),
        }
        for number in range(count)
    ]


def features_of(run: Replayed) -> list[Row]:
    """Return scored rows without when they were processed and where they came from."""
    return [
        {name: value for name, value in row.items() if not name.endswith("_at_ms") and not name.startswith("source_")}
        for row in run.scored
    ]


def test_a_run_has_every_event_once_as_a_replay_of_the_same_table_has_it(cards: Path) -> None:
    rows = payments(60)
    run = replay(rows, cards, batch_records=7)
    expected = millstream.open(cards).replay(rows, label_column="none")
    assert features_of(run) == features_of(Replayed(expected.scored.to_dicts(), [], []))
    assert [row["event_id"] for row in run.predictions] == [str(number) for number in range(60)]


@pytest.fixture(scope="module")
def calm(blank: Path) -> Replayed:
    return replay(reports(80), blank, batch_records=9, partitions=4)


@settings(max_examples=6)
@given(seed=st.integers(0, 1 << 20), crashes=st.integers(0, 6), rebalances=st.integers(0, 6))
def test_crashes_and_rebalances_change_nothing(
    blank: Path, calm: Replayed, seed: int, crashes: int, rebalances: int
) -> None:
    rows = reports(80)
    run = replay(rows, blank, seed=seed, crashes=crashes, rebalances=rebalances, batch_records=9, partitions=4)
    assert run == calm
    assert len(calm.scored) + len(calm.dead_letters) == 80
    assert {row["reason"] for row in calm.dead_letters} == {"not-finite"}


def test_two_stages_share_what_happens_to_a_worker(cards: Path) -> None:
    rows = payments(80)
    assert replay(rows, cards, seed=2, crashes=6, rebalances=6, batch_records=5) == replay(rows, cards, batch_records=5)


def test_duplicates_and_disorder(blank: Path) -> None:
    rows = reports(80)
    calm = replay(rows, blank, batch_records=9)
    twice = replay(rows, blank, seed=1, duplicates=1.0, batch_records=9)
    assert features_of(twice) == features_of(calm)
    assert [row["score"] for row in twice.predictions] == [row["score"] for row in calm.predictions]
    mixed = replay(rows, blank, seed=1, disorder_ms=30 * MINUTE_MS, batch_records=9)
    assert features_of(mixed) != features_of(calm)
    assert len(mixed.scored) == len(calm.scored), "an hour late is in time"
    late = replay(rows, blank, seed=1, disorder_ms=600 * MINUTE_MS, batch_records=9)
    assert "late" in {row["reason"] for row in late.dead_letters}
    again = replay(rows, blank, seed=1, disorder_ms=600 * MINUTE_MS, duplicates=0.3, crashes=4, batch_records=9)
    assert again == replay(rows, blank, seed=1, disorder_ms=600 * MINUTE_MS, duplicates=0.3, batch_records=9)


@pytest.mark.parametrize("faults", [{"crashes": 3}, {"rebalances": 3}])
def test_a_worker_that_recovers_nothing_is_noticed(
    blank: Path, calm: Replayed, faults: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison can fail."""
    monkeypatch.setattr(MemoryLog, "read", lambda *_: iter(()))
    assert replay(reports(80), blank, seed=1, batch_records=9, partitions=4, **faults) != calm


def test_as_many_faults_happen_as_are_asked_for(blank: Path) -> None:
    faults = Faults.drawn(100, 5, 4, random.Random(1))
    assembly = millstream.open(blank).assembly
    started: list[int] = []

    def make() -> list[Any]:
        started.append(1)
        return list(replay_stages(assembly, None, 2))

    happened = [fault for _ in range(100) if (fault := faults.next())]
    assert sum(fault.startswith("killed") for fault in happened) == 5
    assert sum(fault.startswith("rebalanced") for fault in happened) == 4
    Workers(broker_for(assembly.topology, 2), make, 2, 3, Faults({}), 5, random.Random(1))
    assert len(started) == 3


def test_arguments_out_of_range_are_refused(blank: Path) -> None:
    with pytest.raises(Misconfigured, match=r"duplicates is 1\.5; allowed: 0 to 1"):
        replay(reports(1), blank, duplicates=1.5)
    with pytest.raises(Misconfigured, match="batch_records is 0; allowed: 1 to"):
        replay(reports(1), blank, batch_records=0)
    with pytest.raises(Misconfigured, match="crashes is -1"):
        replay(reports(1), blank, crashes=-1)
