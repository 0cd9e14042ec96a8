"""Keys and values of the ledger store.

::

    p + event id            event time (ms), then the scored record as it was consumed
    l + event id            label set
    t + time + event id     nothing; when to look whether the event can be forgotten
    s + source hash         name of the source
    m                       tally
    c                       how far each input has come
    d + day                 predictions counted, by who answered

Integers in values are little-endian; the time in a key is big-endian, so that keys are in order of time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Mask, Rows

LAYOUT: Final = "2"
"""Raised when rows change their meaning, so that a store of an earlier one is rebuilt."""

PREDICTION, LABELS, TIME, SOURCE, TALLY, CLOCK, DAY = b"p", b"l", b"t", b"s", b"m", b"c", b"d"
_TIME_BYTES: Final = 8


def prediction_keys(event_ids: Sequence[bytes]) -> list[bytes]:
    """Return where the predictions of these events are held."""
    return [PREDICTION + event_id for event_id in event_ids]


def label_keys(event_ids: Sequence[bytes]) -> list[bytes]:
    """Return where the label sets of these events are held."""
    return [LABELS + event_id for event_id in event_ids]


def source_key(source: int) -> bytes:
    """Return where the name of a source is held."""
    return SOURCE + source.to_bytes(8, "big", signed=True)


def source_of(key: bytes) -> int:
    """Return the source whose name is held there."""
    return int.from_bytes(key[len(SOURCE) :], "big", signed=True)


def time_keys(times_ms: Rows, event_ids: Sequence[bytes]) -> list[bytes]:
    """Return index keys; times before 1970 count as 1970."""
    blob = np.maximum(times_ms, 0).astype(">i8").tobytes()
    return [TIME + blob[8 * i : 8 * i + 8] + event_id for i, event_id in enumerate(event_ids)]


def time_bound(time_ms: int) -> bytes:
    """Return the key below which all index keys of earlier times are."""
    return TIME + max(time_ms, 0).to_bytes(_TIME_BYTES, "big")


def event_id_of(time_key: bytes) -> bytes:
    """Return the event an index key is about."""
    return time_key[len(TIME) + _TIME_BYTES :]


def time_of(time_key: bytes) -> int:
    """Return the time in an index key, milliseconds since the epoch."""
    return int.from_bytes(time_key[len(TIME) : len(TIME) + _TIME_BYTES], "big")


def encode_predictions(event_time_ms: Rows, scored: Sequence[bytes]) -> list[bytes]:
    """Return the rows of predictions."""
    blob = event_time_ms.astype("<i8").tobytes()
    return [blob[8 * i : 8 * i + 8] + value for i, value in enumerate(scored)]


def decode_times(rows: Sequence[bytes | None]) -> tuple[Mask, Rows]:
    """Return which predictions are held, and the event times of those (0 elsewhere)."""
    nothing = bytes(_TIME_BYTES)
    heads = b"".join([nothing if row is None else row[:_TIME_BYTES] for row in rows])
    predicted = np.fromiter((row is not None for row in rows), np.bool_, len(rows))
    return predicted, np.frombuffer(heads, dtype="<i8").astype(np.int64)


def scored_record(row: bytes) -> bytes:
    """Return the scored record in the row of a prediction, as it was consumed."""
    return row[_TIME_BYTES:]


def encode_tally(tally: NDArray[np.int64]) -> bytes:
    """Return a tally as bytes: position and value of what is not zero."""
    places = np.flatnonzero(tally)
    return np.stack([places, tally[places]]).astype("<i8").tobytes()


def decode_tally(row: bytes | None, size: int) -> NDArray[np.int64]:
    """Return the tally that `encode_tally` wrote; None is all zeros."""
    tally = np.zeros(size, dtype=np.int64)
    places, values = np.frombuffer(row or b"", dtype="<i8").reshape(2, -1)
    tally[places] = values
    return tally


def day_key(day: int) -> bytes:
    """Return where the predictions of a day (since 1970-01-01 UTC) are counted."""
    return DAY + day.to_bytes(_TIME_BYTES, "big", signed=True)


def day_of(key: bytes) -> int:
    """Return the day that is counted there."""
    return int.from_bytes(key[len(DAY) :], "big", signed=True)


def encode_clock(*times_ms: int) -> bytes:
    """Return times as bytes."""
    return np.array(times_ms, dtype="<i8").tobytes()


def decode_clock(row: bytes | None, count: int) -> list[int]:
    """Return the times that `encode_clock` wrote; None is -1 for each."""
    times_ms: list[int] = np.frombuffer(row, dtype="<i8").tolist() if row else [-1] * count
    return times_ms
