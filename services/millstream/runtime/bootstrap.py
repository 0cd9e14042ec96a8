"""Seed a fresh cluster's window state from a replay of history, so that the first live event meets full windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from millstream.core.partitioner import partition_of
from millstream.core.windows.rows import key_text
from millstream.runtime.log.protocol import StageLog
from millstream.runtime.log.records import Output
from millstream.runtime.recovery import MARKER_KEY, marker_of, parts_of
from millstream.runtime.stage import Stage

_ROWS_PER_TRANSACTION = 5_000


def seed(log: StageLog, stage: Stage, partitions: int, ends: Mapping[int, Mapping[str, int]]) -> int:
    """Write a replayed stage's stores to its changelog, spread over its partitions as the keys are.

    Markers go last: until a partition has one, its rows are not looked at, so a crash half-way leaves nothing behind
    that counts. What an earlier seeding wrote is deleted first. The stage must not have consumed anything: what it has
    stored would be deleted as well.

    Parameters
    ----------
    stage : Stage
        Its state is in partition 0.
    ends : mapping of partition to offsets by topic
        From where on the live stage is to read its inputs: the present ends.

    Returns
    -------
    int
        Number of rows written.
    """
    plan = stage.plan
    for partition in range(partitions):
        if stored := _stored_keys(log, plan.changelog, partition):
            ordered = sorted(stored, key=lambda key: key != MARKER_KEY)  # rows without their marker count for nothing
            log.send([Output(plan.changelog, ordered, [None] * len(ordered), partition)])
            log.commit({})
    parts = parts_of(stage, 0)
    rows = [(key, value) for part in parts for key, value in part.rows() if value is not None]
    places = partition_of([key_text(key[1:]) for key, _ in rows], partitions).tolist()
    shares: list[list[tuple[bytes, bytes]]] = [[] for _ in range(partitions)]
    for place, row in zip(places, rows, strict=True):
        shares[place].append(row)
    for partition, share in enumerate(shares):
        for start in range(0, len(share), _ROWS_PER_TRANSACTION):
            log.send([_rows(plan.changelog, partition, share[start : start + _ROWS_PER_TRANSACTION])])
            log.commit({})
        marker = marker_of(parts, ends[partition], stage.featurize.stores[0].stream_time_ms)
        log.send([Output(plan.changelog, [MARKER_KEY], [marker.encode()], partition)])
        log.commit({})
    return len(rows)


def _stored_keys(log: StageLog, changelog: str, partition: int) -> list[bytes]:
    stored: dict[bytes, None] = {}
    for records in log.read(changelog, partition, 0, None):
        for key, value in zip(records.keys, records.values, strict=True):
            if key is not None and value is not None:
                stored[key] = None
            elif key is not None:
                stored.pop(key, None)
    return list(stored)


def _rows(changelog: str, partition: int, rows: Sequence[tuple[bytes, bytes]]) -> Output:
    return Output(changelog, [key for key, _ in rows], [value for _, value in rows], partition)
