"""Rejections as dead letters: the reason, where the record was, and its original bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from millstream.adapters.kafka.dead_letters import digest_of
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch, Rejection
from millstream.core.requirements import UNUSABLE
from millstream.errors import Stop
from millstream.runtime.flow import Flow
from millstream.runtime.log.records import Output, Records
from millstream.topology import DEAD_LETTERS

HEAD_BYTES = 1024
_FRAME_BYTES = 4096  # a letter's own fields and Kafka's framing: an id, a topic, a stage, a detail
_DETAIL_CHARACTERS = 500


def dead_letter_output(
    records: Records,
    rejections: Sequence[Rejection],
    stage: str,
    failed_at_ms: int,
    writer: RecordWriter,
    most_bytes: int,
    stream_times_ms: Sequence[int | None] = (),
) -> Output:
    """Return the dead letters of one micro-batch, keyed by their id ``topic-partition-offset``.

    Parameters
    ----------
    most_bytes : int
        Largest record the dead-letter topic takes. A record that would not fit with its letter around it is cut to the
        first `HEAD_BYTES` of key and of value, with the digest of the whole: the original stays where it was, and the
        stage, which could never commit a letter too large, goes on.
    stream_times_ms : sequence of (int or None), optional
        Of each rejection: event time that the stream had reached, milliseconds since the epoch.
    """
    rows = [rejection.row for rejection in rejections]
    places = [(int(records.partitions[row]), int(records.offsets[row])) for row in rows]
    ids = [f"{records.topic}-{partition}-{offset}" for partition, offset in places]
    keys, values, digests = [], [], []
    for row in rows:
        key, value, digest = _fitting(records.keys[row], records.values[row], most_bytes - _FRAME_BYTES)
        keys.append(key)
        values.append(value)
        digests.append(digest)
    count = len(rows)
    reached = stream_times_ms or [None] * count
    columns = {
        "id": np.array(ids, dtype=object),
        "topic": np.full(count, records.topic, dtype=object),
        "partition": np.array([partition for partition, _ in places], dtype=np.int64),
        "offset": np.array([offset for _, offset in places], dtype=np.int64),
        "key": _objects([key or b"" for key in keys]),
        "value": _objects([value or b"" for value in values]),
        "reason": _objects([rejection.reason for rejection in rejections]),
        "field": _objects([rejection.field for rejection in rejections]),
        "detail": _objects([_short(rejection.detail) for rejection in rejections]),
        "stage": np.full(count, stage, dtype=object),
        "received_at_ms": records.timestamps_ms[np.array(rows, dtype=np.int64)],
        "failed_at_ms": np.full(count, failed_at_ms, dtype=np.int64),
        "whole_sha256": _objects(digests),
        "stream_time": _objects([str(np.datetime64(each or 0, "ms")) for each in reached]),
    }
    nulls = {
        "key": np.array([key is None for key in keys]),
        "value": np.array([value is None for value in values]),
        "stream_time": np.array([each is None for each in reached], dtype=np.bool_),
    }
    return Output(DEAD_LETTERS, [each.encode() for each in ids], writer.encode(Batch(count, columns, nulls)))


class DeadLetters:
    """The dead letters of one stage.

    Parameters
    ----------
    stage : str
    writer : RecordWriter
        Of the dead-letter topic.
    most_bytes : int
        As `dead_letter_output`.
    """

    def __init__(self, stage: str, writer: RecordWriter, most_bytes: int) -> None:
        self._stage = stage
        self._writer = writer
        self._most_bytes = most_bytes

    def __call__(self, flows: Iterable[Flow], now_ms: int) -> list[Output]:
        """Return the dead letters of what these flows rejected; [] if nothing."""
        return [
            dead_letter_output(flow.records, flow.rejections, self._stage, now_ms, self._writer, self._most_bytes)
            for flow in flows
            if flow.rejections
        ]


def _fitting(key: bytes | None, value: bytes | None, room_bytes: int) -> tuple[bytes | None, bytes | None, bytes]:
    """Return key and value as a letter may hold them, and the digest of the whole if they were cut, else no bytes."""
    if len(key or b"") + len(value or b"") <= room_bytes:
        return key, value, b""
    head = slice(HEAD_BYTES)
    return key and key[head], value and value[head], digest_of(key, value)


def _short(detail: str) -> str:
    # Some sentences quote the record, which may be as large as it likes.
    return detail if len(detail) <= _DETAIL_CHARACTERS else f"{detail[: _DETAIL_CHARACTERS - 3]}..."


def _objects(values: Sequence[object]) -> np.ndarray:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


LATE = "late"
"""Reason of events older than their key's windows reach back."""

_NOT_COUNTED = frozenset({LATE, UNUSABLE})


class DeadLetterLimit:
    """Stop a stage that would dead-letter nearly everything: most likely a bad deploy, not bad data.

    Late events do not count, nor do records of the engine's own topics that no stage can use: those were written by an
    earlier deploy, and stopping would not make them usable.

    Parameters
    ----------
    share : float
        In (0, 1]; 1 never stops.
    window : int
        Records over which the share is taken, at least; the share is judged each time so many have passed.
    """

    def __init__(self, share: float, window: int) -> None:
        self._share = share
        self._window = window
        self._seen = 0
        self._rejected: dict[str, int] = {}

    def update(self, records: int, rejections: Sequence[Rejection]) -> None:
        """Count a micro-batch.

        Raises
        ------
        Stop
            With the reasons met, when the share of the last window is above the limit.
        """
        self._seen += records
        for rejection in rejections:
            if rejection.reason in _NOT_COUNTED:
                continue
            self._rejected[rejection.reason] = self._rejected.get(rejection.reason, 0) + 1
        if self._seen < self._window:
            return
        rejected = sum(self._rejected.values())
        if self._share < 1 and rejected > self._share * self._seen:
            reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(self._rejected.items(), key=lambda i: -i[1]))
            raise Stop(
                f"{rejected} of the last {self._seen} records would go to {DEAD_LETTERS} ({reasons}), more than the "
                f"allowed share of {self._share:g}. Nothing of this micro-batch was committed. If the contract or the "
                "producer is wrong, mend it and start again; to let them through, set MILLSTREAM_DEAD_LETTER_SHARE=1"
            )
        self._seen, self._rejected = 0, {}
