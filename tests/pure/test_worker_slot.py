"""Names that are stable over restarts and differ between workers."""

from pathlib import Path

from millstream.runtime.worker_slot import WorkerSlot


def test_workers_side_by_side_differ_and_a_restart_takes_the_same_name(tmp_path: Path) -> None:
    first, second = WorkerSlot(tmp_path), WorkerSlot(tmp_path)
    assert first.name != second.name
    name = first.name
    first.release()
    third = WorkerSlot(tmp_path)
    assert third.name == name
    second.release()
    third.release()


def test_a_given_name_is_used(tmp_path: Path) -> None:
    assert WorkerSlot(tmp_path, "pod-3").name == "pod-3"
