"""State that moves with its keys, or is counted again, when topics get more partitions; see `Rescale`."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from millstream.adapters.kafka.client import read_committed
from millstream.adapters.kafka.producer import write_rows
from millstream.core.drift.partition_counts import PartitionCounts
from millstream.core.drift.slot_summary import SLOT_MS
from millstream.core.partitioner import partition_of
from millstream.core.windows.rows import key_text
from millstream.runtime.clock_bound import REFUSED_PREFIX, RefusedOffsets
from millstream.runtime.recovery import MARKER_KEY, Marker, Valid
from millstream.topology import MEASURE_CHANGELOG, StagePlan

_TIMEOUT_S: Final = 60.0
Rows = Sequence[tuple[int, bytes, bytes | None]]


def state_rows(kafka: Mapping[str, str], changelog: str, partition: int) -> dict[bytes, bytes]:
    """Return what a partition of a changelog holds."""
    rows: dict[bytes, bytes] = {}
    for messages in read_committed(kafka, changelog, partition, 0, None):
        for message in messages:
            key, value = message.key(), message.value()
            if key is not None and value is not None:
                rows[key] = value
            elif key is not None:
                rows.pop(key, None)
    return rows


def refused_offsets(kafka: Mapping[str, str], changelog: str, partition: int, base: int) -> frozenset[int]:
    """Return the offsets of the records that the wall clock's bound refused; ``base`` is what stored ones are ahead."""
    refused = RefusedOffsets()
    for key, value in state_rows(kafka, changelog, partition).items():
        if key.startswith(REFUSED_PREFIX):
            refused.load(key[1:], value)
    return frozenset(each - base for each in refused.offsets())


def move_rows(kafka: Mapping[str, str], stage: StagePlan, count: int, read: Mapping[str, Sequence[int]]) -> int:
    """Put each row into its key's partition, delete it in the earlier one, and write the markers; return how many.

    In that order, so that a crash leaves a row twice, but never nowhere. Streams of several partitions become one, as
    far on as the furthest of them was.

    Parameters
    ----------
    read : mapping of str to sequence of int
        Stored offsets that the state is valid for, by input topic and partition.
    """
    moved: list[tuple[int, bytes, bytes | None]] = []
    deleted: list[tuple[int, bytes, bytes | None]] = []
    markers: list[Marker] = []
    for partition in range(count):
        rows = state_rows(kafka, stage.changelog, partition)
        if (marker := rows.pop(MARKER_KEY, None)) is not None:
            markers.append(Marker.decode(marker))
        # Offsets of the earlier log, whose records were not copied.
        deleted += [(partition, key, None) for key in rows if key.startswith(REFUSED_PREFIX)]
        rows = {key: value for key, value in rows.items() if not key.startswith(REFUSED_PREFIX)}
        places = partition_of([key_text(key[1:]) for key in rows], count).tolist() if rows else []
        for place, (key, value) in zip(places, rows.items(), strict=True):
            if place != partition:
                moved.append((place, key, value))
                deleted.append((partition, key, None))
    write_rows(kafka, stage.changelog, moved)
    write_rows(kafka, stage.changelog, deleted)
    if markers:
        newest_ms = max(marker.stream_time_ms for marker in markers)
        like = [_marker(stage, p, markers[0], newest_ms, read) for p in range(count)]
        write_rows(kafka, stage.changelog, [(p, MARKER_KEY, marker.encode()) for p, marker in enumerate(like)])
    return len(moved)


def _marker(
    stage: StagePlan, partition: int, like: Marker, newest_ms: int, read: Mapping[str, Sequence[int]]
) -> Marker:
    labels = None
    if stage.labels is not None and like.labels is not None:
        labels = Valid(read[stage.labels.input][partition], like.labels.fingerprint)
    return Marker(Valid(read[stage.input][partition], like.events.fingerprint), labels, newest_ms)


def move_measures(kafka: Mapping[str, str], read: Sequence[int]) -> None:
    """Keep what each partition has counted and not published, and go on behind the scored records that were read.

    Counts add up over partitions, so that the events they are of may move to others.

    Parameters
    ----------
    read : sequence of int
        Stored offsets by partition.
    """
    rows = []
    for partition, offset in enumerate(read):
        held = measured(kafka, partition)
        nothing = base64.b64encode(PartitionCounts(partition, SLOT_MS).snapshot()).decode()
        value = json.dumps({"next_offset": offset, "counts": nothing if held is None else held["counts"]}).encode()
        rows.append((partition, b"%d" % partition, value))
    write_rows(kafka, MEASURE_CHANGELOG, rows)


def measured(kafka: Mapping[str, str], partition: int) -> dict[str, Any] | None:
    """Return what a partition has counted and not published, and the offset that is valid for; None without any."""
    value = state_rows(kafka, MEASURE_CHANGELOG, partition).get(b"%d" % partition)
    found: dict[str, Any] | None = None if value is None else json.loads(value)
    return found
