"""A log in memory that is given more partitions in the middle of a run: state as the command moves it."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from copy import deepcopy

import pytest

from millstream.core.partitioner import partition_of
from millstream.runtime.log.memory_log import Entry, MemoryBroker, Partition
from millstream.runtime.log.records import Output
from millstream.runtime.rescale import state as rescale_state
from millstream.runtime.rescale.state import move_measures, move_rows
from millstream.topology import MEASURE_CHANGELOG, SCORED, Topology


def rescaled(topology: Topology, before: MemoryBroker, count: int, monkeypatch: pytest.MonkeyPatch) -> MemoryBroker:
    """Return what `Rescale` makes of it once everything was read and is stopped; groups are called as the stages are.

    Records are moved here as `tests/contracts/test_rescale.py` finds them after the command; state is moved by the
    command's own functions.
    """
    after = MemoryBroker(count, topics=deepcopy(before.topics), committed=dict(before.committed))
    state = {stage.changelog for stage in topology.stages} | {MEASURE_CHANGELOG}
    keyed = [topic.name for topic in topology.topics if topic.partitions is None]
    read: dict[str, list[int]] = {}
    for name in keyed:
        held = after.topics[name]
        held += [Partition() for _ in range(count - len(held))]
        if name not in state:
            after.topics[name] = _by_key(held)
            read[name] = [each.end for each in after.topics[name]]
    for group, topic in {(group, topic) for group, topic, _ in before.committed if topic in read}:
        after.committed |= {(group, topic, partition): end for partition, end in enumerate(read[topic])}

    def state_rows(_kafka: Mapping[str, str], changelog: str, partition: int) -> dict[bytes, bytes]:
        newest = {key or b"": value for _, key, value in after.topics[changelog][partition].entries}
        return {key: value for key, value in newest.items() if value is not None}

    def write_rows(_kafka: Mapping[str, str], topic: str, rows: Sequence[tuple[int, bytes, bytes | None]]) -> None:
        for partition, key, value in rows:
            after.append(Output(topic, [key], [value], partition))

    with monkeypatch.context() as patched:
        patched.setattr(rescale_state, "state_rows", state_rows)
        patched.setattr(rescale_state, "write_rows", write_rows)
        for stage in topology.stages:
            move_rows({}, stage, count, read)
        if MEASURE_CHANGELOG in keyed:
            move_measures({}, read[SCORED])
    return after


def _by_key(held: Sequence[Partition]) -> list[Partition]:
    moved = [Partition(each.end) for each in held]
    parts = [_timed(number, each) for number, each in enumerate(held)]
    for *_, entry in heapq.merge(*parts, key=lambda each: each[:3]):
        moved[int(partition_of([entry[1] or b""], len(held))[0])].entries.append(entry)
    return moved


def _timed(number: int, held: Partition) -> list[tuple[int, int, int, Entry]]:
    newest_ms, found = 0, []
    for at, entry in enumerate(held.entries):
        newest_ms = max(newest_ms, entry[0])
        found.append((newest_ms, number, at, entry))
    return found
