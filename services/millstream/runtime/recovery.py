"""One principle for window state: a store knows the offset it is valid for; replay from there to the committed one.

The changelog partition of a stage holds, for the input partitions of the same number, the rows of the window stores
(of events, and of labels where there are any) and one marker: for each store, the offset of its input that it is valid
for. All are written in one transaction, so they agree. Records that were refused by the wall clock (`clock_bound`) are
not replayed. Replay is silent: state only, no outputs. Folding is indifferent
to order and repetition, so a marker that is too old only costs time, and the inputs may be replayed one after another.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from millstream.core.generations import generation_of
from millstream.core.windows.entries import KeyedEntries
from millstream.runtime.clock_bound import REFUSED_PREFIX, RefusedOffsets
from millstream.runtime.fold_stage import replay
from millstream.runtime.log.protocol import LogReader
from millstream.runtime.log.records import Output, Records
from millstream.runtime.work import Progress

if TYPE_CHECKING:
    from millstream.runtime.stage import Stage

logger = logging.getLogger(__name__)

EVENTS_PREFIX = b"r"
LABELS_PREFIX = b"l"
MARKER_KEY = b"m"


@dataclass(frozen=True, slots=True)
class Valid:
    """What the rows of one store are valid for.

    Parameters
    ----------
    next_offset : int
        Records of its input before it are in the rows.
    fingerprint : str
        Of the store that wrote the rows; another one cannot read them.
    """

    next_offset: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Marker:
    """What the rows beside it are valid for.

    Parameters
    ----------
    events : Valid
    labels : Valid or None
        None where no view is declared over labels.
    stream_time_ms : int
        Newest event time of the partition that two keys have reached; for people.
    clocks : list of list of int
        `WindowStore.clocks`; [] in markers of earlier versions.
    """

    events: Valid
    labels: Valid | None
    stream_time_ms: int
    clocks: Sequence[Sequence[int]] = ()

    def encode(self) -> bytes:
        """Return the marker as JSON."""
        told: dict[str, object] = {"stream_time_ms": self.stream_time_ms, **_told(self.events)}
        if self.labels is not None:
            told["labels"] = _told(self.labels)
        if self.clocks:
            told["clocks"] = self.clocks
        return json.dumps(told).encode()

    @classmethod
    def decode(cls, value: bytes) -> Marker:
        """Return the marker that `encode` wrote."""
        raw = json.loads(value)
        labels = raw.get("labels")
        return cls(
            _valid(raw), None if labels is None else _valid(labels), raw["stream_time_ms"], raw.get("clocks", [])
        )


def _told(valid: Valid) -> dict[str, int | str]:
    return {"next_offset": valid.next_offset, "fingerprint": valid.fingerprint}


def _valid(raw: Mapping[str, int | str]) -> Valid:
    return Valid(int(raw["next_offset"]), str(raw["fingerprint"]))


@dataclass(frozen=True, slots=True)
class Part:
    """One store of a stage: what its rows begin with, and the input it is made of."""

    prefix: bytes
    topic: str
    store: KeyedEntries
    fingerprint: str

    def rows(self) -> list[tuple[bytes, bytes | None]]:
        """Return the rows that changed since the last checkpoint, as the changelog holds them."""
        return [(self.prefix + key, value) for key, value in self.store.dirty_rows()]


def parts_of(stage: Stage, partition: int) -> list[Part]:
    """Return the stores that a stage has for a partition."""
    plan, events, labels = stage.plan, stage.featurize.stores[partition], stage.featurize.labels
    parts = [Part(EVENTS_PREFIX, plan.input, events, events.fingerprint)]
    if plan.labels is not None and labels is not None:
        store = labels.store(partition)
        parts.append(Part(LABELS_PREFIX, plan.labels.input, store, store.fingerprint))
    return parts


def marker_of(
    parts: Sequence[Part],
    next_offsets: Mapping[str, int],
    stream_time_ms: int,
    clocks: Sequence[Sequence[int]] = (),
) -> Marker:
    """Return the marker that makes the rows of these stores valid for these offsets by topic."""
    valid = [Valid(next_offsets[part.topic], part.fingerprint) for part in parts]
    return Marker(valid[0], valid[1] if len(valid) > 1 else None, stream_time_ms, clocks)


def checkpoint(stage: Stage, partition: int, next_offsets: Mapping[str, int], stale: Sequence[bytes] = ()) -> Output:
    """Return the rows that changed since the last checkpoint, and the marker that makes them valid.

    Parameters
    ----------
    next_offsets : mapping of str to int
        By input topic.
    stale : sequence of bytes
        Keys of rows of an earlier declaration, to be deleted first.
    """
    parts = parts_of(stage, partition)
    rows: list[tuple[bytes, bytes | None]] = [(key, None) for key in stale]
    for part in parts:
        rows += part.rows()
    store = stage.featurize.stores[partition]
    marker = marker_of(parts, next_offsets, store.stream_time_ms, store.clocks())
    keys = [key for key, _ in rows]
    values: list[bytes | None] = [value for _, value in rows]
    return Output(stage.plan.changelog, [*keys, MARKER_KEY], [*values, marker.encode()], partition)


@dataclass(frozen=True, slots=True)
class Restored:
    """What recovery did.

    Offsets by topic to continue from, how much it read, keys of rows that cannot be read any more, and whether rows of
    an earlier layout were converted.
    """

    next_offsets: Mapping[str, int]
    rows: int
    replayed: int
    stale: tuple[bytes, ...] = ()
    converted: bool = False


@dataclass(frozen=True, slots=True)
class _Stored:
    """What a changelog partition holds: rows by prefix and key, and the marker."""

    rows: dict[bytes, dict[bytes, bytes]]
    marker: Marker | None


def recover(
    stage: Stage, log: LogReader, partition: int, committed: Mapping[str, int | None], on_progress: Progress
) -> Restored:
    """Give the stage stores for the partition that are valid for the committed offsets.

    Parameters
    ----------
    committed : mapping of str to int or None
        The group's offset by input topic; None where it never committed.

    Raises
    ------
    Retry, Stop
        The log cannot be read.
    """
    plan, featurize = stage.plan, stage.featurize
    events = featurize.stores[partition] = featurize.new_store()
    if featurize.labels is not None:
        featurize.labels.stores[partition] = featurize.labels.new_store()
    stored = _stored(stage, log, partition, on_progress)
    marker = stored.marker
    parts = parts_of(stage, partition)
    refused = RefusedOffsets()
    for key, value in stored.rows.pop(REFUSED_PREFIX, {}).items():
        refused.load(key, value)
    stale = refused.drop_before(log.beginning(plan.input, partition))
    stale += [
        prefix + key for prefix in stored.rows.keys() - {part.prefix for part in parts} for key in stored.rows[prefix]
    ]
    spans: dict[str, tuple[int, int]] = {}
    loaded, converted = 0, False
    for part in parts:
        valid = None if marker is None else marker.events if part.prefix == EVENTS_PREFIX else marker.labels
        rows = stored.rows.get(part.prefix, {})
        beginning = log.beginning(part.topic, partition)
        offset = committed.get(part.topic)
        go_on = offset if offset is not None else valid.next_offset if valid is not None else beginning
        readable = None if valid is None else part.store.readable(valid.fingerprint, rows)
        if valid is not None and readable is not None:
            loaded += len(rows)
            if part.prefix == LABELS_PREFIX and featurize.labels is not None:
                featurize.labels.stores[partition].load_rows(readable)
            elif marker is not None:
                events.load_rows(readable, marker.clocks)
            if valid.fingerprint != part.fingerprint:
                part.store.mark_dirty()
                converted = True
            spans[part.topic] = max(beginning, valid.next_offset), go_on
            if valid.next_offset < min(beginning, go_on) and generation_of(valid.next_offset) == generation_of(go_on):
                logger.warning(
                    "%s[%s]: offsets %s to %s of %s were deleted by retention before a checkpoint held them",
                    plan.name, partition, valid.next_offset, beginning, part.topic,
                )  # fmt: skip
            continue
        if valid is not None:
            logger.warning(
                "%s[%s]: the declared windows changed; state is rebuilt from %s, offset %s on",
                plan.name, partition, part.topic, beginning,
            )  # fmt: skip
        stale += [part.prefix + key for key in rows]
        spans[part.topic] = beginning, go_on

    def fold(records: Records) -> None:
        stage.apply(refused.without(records) if records.topic == plan.input else records)

    # Events first: labels are kept as far back as events reach, and rows of the online view are stamped after theirs.
    replayed = replay(log, partition, spans, fold, on_progress, plan.name)
    refused.drop_before(spans[plan.input][1])
    stage.refused[partition] = refused
    return Restored({topic: end for topic, (_, end) in spans.items()}, loaded, replayed, tuple(stale), converted)


def _stored(stage: Stage, log: LogReader, partition: int, on_progress: Progress) -> _Stored:
    rows: dict[bytes, dict[bytes, bytes]] = {}
    marker: Marker | None = None
    for records in log.read(stage.plan.changelog, partition, 0, None):
        for key, value in zip(records.keys, records.values, strict=True):
            if key == MARKER_KEY and value is not None:
                marker = Marker.decode(value)
            elif key is not None and value is not None:
                rows.setdefault(key[:1], {})[key[1:]] = value
            elif key is not None:
                rows.get(key[:1], {}).pop(key[1:], None)
        on_progress(f"{stage.name}[{partition}]: {sum(map(len, rows.values()))} state rows read")
    return _Stored(rows, marker)
