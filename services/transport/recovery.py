"""One principle for window state: a store knows the offset it is valid for; replay from there to the committed one.

The changelog partition of a stage holds, for the input partition of the same number, the rows of the window store
and one marker: the offset S they are valid for. Both are written in one transaction, so they agree. Replay is silent:
state only, no outputs. Folding is indifferent to order and repetition, so a marker that is too old only costs time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.core.windows.store import WindowStore
from services.transport.log import LogReader
from services.transport.records import Output
from services.transport.work import Progress

if TYPE_CHECKING:
    from services.transport.stage import Stage

logger = logging.getLogger(__name__)

ROW_PREFIX = b"r"
MARKER_KEY = b"m"
CHUNK_RECORDS = 5_000


@dataclass(frozen=True, slots=True)
class Marker:
    """What the rows beside it are valid for.

    Parameters
    ----------
    next_offset : int
        Input records before it are in the rows.
    fingerprint : str
        Of the window store that wrote the rows; another one cannot read them.
    stream_time_ms : int
        Newest event time of the partition.
    """

    next_offset: int
    fingerprint: str
    stream_time_ms: int

    def encode(self) -> bytes:
        """Return the marker as JSON."""
        return json.dumps(
            {
                "next_offset": self.next_offset,
                "fingerprint": self.fingerprint,
                "stream_time_ms": self.stream_time_ms,
            }
        ).encode()

    @classmethod
    def decode(cls, value: bytes) -> Marker:
        """Return the marker that `encode` wrote."""
        return cls(**json.loads(value))


def checkpoint(
    store: WindowStore, changelog: str, partition: int, next_offset: int, stale: Sequence[bytes] = ()
) -> Output:
    """Return the rows that changed since the last checkpoint, and the marker that makes them valid.

    ``stale`` are row keys of an earlier declaration, to be deleted first.
    """
    rows: list[tuple[bytes, bytes | None]] = [(key, None) for key in stale]
    rows += store.dirty_rows()
    marker = Marker(next_offset, store.fingerprint, store.stream_time_ms)
    keys = [ROW_PREFIX + key for key, _ in rows]
    values: list[bytes | None] = [value for _, value in rows]
    return Output(changelog, [*keys, MARKER_KEY], [*values, marker.encode()], partition)


@dataclass(frozen=True, slots=True)
class Restored:
    """What recovery did: the offset to go on from, how much it read, and row keys nobody can read any more."""

    next_offset: int
    rows: int
    replayed: int
    stale: tuple[bytes, ...] = ()


def recover(stage: Stage, log: LogReader, partition: int, committed: int | None, on_progress: Progress) -> Restored:
    """Give the stage a store for the partition that is valid for the committed offset.

    Parameters
    ----------
    committed : int or None
        The group's offset; None when it never committed.

    Raises
    ------
    Retry, Stop
        The log cannot be read.
    """
    plan = stage.plan
    store = stage.featurize.new_store()
    rows: dict[bytes, bytes] = {}
    marker: Marker | None = None
    for records in log.read(plan.changelog, partition, 0, None):
        for key, value in zip(records.keys, records.values, strict=True):
            if key == MARKER_KEY and value is not None:
                marker = Marker.decode(value)
            elif key is not None and value is not None:
                rows[key[1:]] = value
            elif key is not None:
                rows.pop(key[1:], None)
        on_progress(f"{plan.name}[{partition}]: {len(rows)} state rows read")
    beginning = log.beginning(plan.input, partition)
    stale: tuple[bytes, ...] = ()
    if marker is not None and marker.fingerprint != store.fingerprint:
        logger.warning(
            "%s[%s]: the declared windows changed; state is rebuilt from %s, offset %s on",
            plan.name,
            partition,
            plan.input,
            beginning,
        )
        go_on = committed if committed is not None else marker.next_offset
        stale = tuple(rows)
        marker, rows = None, {}
    else:
        go_on = committed if committed is not None else (marker.next_offset if marker else beginning)
    start = beginning
    if marker is not None:
        store.load_rows(list(rows.items()), marker.stream_time_ms)
        start = max(beginning, marker.next_offset)
        if marker.next_offset < beginning and marker.next_offset < go_on:
            logger.warning(
                "%s[%s]: offsets %s to %s were deleted by retention before a checkpoint held them",
                plan.name,
                partition,
                marker.next_offset,
                beginning,
            )
    stage.featurize.stores[partition] = store
    replayed = 0
    for records in log.read(plan.input, partition, start, go_on):
        for chunk in records.chunks(CHUNK_RECORDS):
            stage.apply(chunk)
            replayed += len(chunk)
        on_progress(f"{plan.name}[{partition}]: {replayed} records replayed")
    return Restored(go_on, len(rows), replayed, stale)
