"""The machine code of a Feast row in Redis: protobuf values as RESP bulk strings, row after row.

Each row becomes its ``google.protobuf.Timestamp`` and then one ``feast.types.Value`` per feature; null is the empty
string.

References
----------
.. [1] Protocol Buffers, "Encoding", https://protobuf.dev/programming-guides/encoding/
.. [2] Redis, "Redis serialization protocol specification", bulk strings.
.. [3] Feast, docs/specs/online_store_format.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from millstream.core.declaration import FeatureType
from millstream.core.jit import inline, kernel

NUMBERS: tuple[FeatureType, ...] = ("int64", "int32", "unix_timestamp", "bool", "float64", "float32")
INT64, INT32, UNIX_TIMESTAMP, BOOL, FLOAT64, FLOAT32 = range(len(NUMBERS))
# Field number and wire type of the member of Value's oneof.
_TAGS = np.array([0x20, 0x18, 0x40, 0x38, 0x29, 0x35], dtype=np.uint8)
_MAX_VARINT = 10
_MAX_BULK = 7 + 2 + 2 * (1 + _MAX_VARINT)  # "$22\r\n", two tagged varints, "\r\n"

_US = 1_000_000


def max_row_bytes(features: int) -> int:
    """Return the most bytes one row of that many features takes."""
    return _MAX_BULK * (features + 1)


@inline
def _put_varint(out: NDArray[np.uint8], at: int, value: int) -> int:
    rest = np.uint64(value)  # negative: two's complement, ten bytes
    while rest >= np.uint64(0x80):
        out[at] = np.uint8(rest & np.uint64(0x7F)) | np.uint8(0x80)
        rest >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(rest)
    return at + 1


@inline
def _frame(out: NDArray[np.uint8], start: int, end: int) -> int:
    """Put length and ends around ``out[start:end]``, before which five bytes are free; return where it ends now."""
    length = end - start
    out[start - 5] = 36  # "$"
    if length >= 10:
        out[start - 4] = 48 + length // 10
        out[start - 3] = 48 + length % 10
    else:
        # A length of one digit needs one byte less: move the content there.
        out[start - 4] = 48 + length
        for k in range(length):
            out[start - 1 + k] = out[start + k]
        start -= 1
        end -= 1
    out[start - 2] = 13
    out[start - 1] = 10
    out[end] = 13
    out[end + 1] = 10
    return end + 2


@kernel
def pack(
    kinds: NDArray[np.int64],
    features: NDArray[np.float64],
    wholes: NDArray[np.int64],
    times_us: NDArray[np.int64],
    out: NDArray[np.uint8],
    ends: NDArray[np.int64],
) -> None:
    """Write n rows end to end into ``out`` and where each ends into ``ends``.

    Parameters
    ----------
    kinds : int64 ndarray of shape (m,)
        Positions in `NUMBERS`.
    features : float64 ndarray of shape (n, m)
        NaN is null; whole numbers where the kind is integral.
    wholes : int64 ndarray of shape (n, m) or (n, 0)
        Those whole numbers exactly; without columns where ``features`` are exact.
    times_us : int64 ndarray of shape (n,)
        Microseconds since the epoch.
    out : uint8 ndarray of at least n * max_row_bytes(m)
    ends : int64 ndarray of shape (n,)
    """
    real = np.zeros(1, dtype=np.float64)
    bits = real.view(np.int64)
    real32 = np.zeros(1, dtype=np.float32)
    bits32 = real32.view(np.int32)
    at = 0
    for row in range(len(times_us)):
        seconds = times_us[row] // _US  # floor: nanoseconds count forward also before 1970
        nanos = (times_us[row] - seconds * _US) * 1000
        start = end = at + 5
        if seconds != 0:
            out[end] = np.uint8(0x08)
            end = _put_varint(out, end + 1, seconds)
        if nanos != 0:
            out[end] = np.uint8(0x10)
            end = _put_varint(out, end + 1, nanos)
        at = _frame(out, start, end)
        for column in range(len(kinds)):
            value = features[row, column]
            start = end = at + 5
            if not np.isnan(value):
                kind = kinds[column]
                out[end] = _TAGS[kind]
                end += 1
                if kind == FLOAT64:
                    real[0] = value
                    for k in range(8):
                        out[end + k] = np.uint8((bits[0] >> np.int64(8 * k)) & np.int64(0xFF))
                    end += 8
                elif kind == FLOAT32:
                    real32[0] = np.float32(value)
                    for k in range(4):
                        out[end + k] = np.uint8((bits32[0] >> np.int32(8 * k)) & np.int32(0xFF))
                    end += 4
                else:
                    end = _put_varint(out, end, wholes[row, column] if wholes.shape[1] > 0 else int(value))
            at = _frame(out, start, end)
        ends[row] = at
