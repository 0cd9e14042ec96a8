"""Decodes Feast's stored ``feast.types.Value`` messages to columns."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from millstream.core.batch import Array, Mask
from millstream.core.declaration import FeatureType
from millstream.core.feast_cast import NULL_TIME_S

Scalar = int | float | bool | str

_DTYPES: dict[FeatureType, type] = {
    "int64": np.int64,
    "int32": np.int64,
    "unix_timestamp": np.int64,
    "float64": np.float64,
    "float32": np.float64,
    "bool": np.bool_,
    "string": object,
}
_DOUBLE, _FLOAT, _BOOL, _STRING = 0x29, 0x35, 0x38, 0x12
_WHOLE = frozenset({0x20, 0x18, 0x40})


def decode_value(stored: bytes) -> Scalar | None:
    """Return what a serialized Value holds, None for null and for kinds no feature here can have.

    Examples
    --------
    >>> decode_value(b" \\x05"), decode_value(b"\\x12\\x01a"), decode_value(b"")
    (5, 'a', None)
    """
    if len(stored) < 2:
        return None
    tag = stored[0]
    if tag == _DOUBLE and len(stored) == 9:
        return float(struct.unpack_from("<d", stored, 1)[0])
    if tag == _FLOAT and len(stored) == 5:
        return float(struct.unpack_from("<f", stored, 1)[0])
    if tag not in _WHOLE and tag not in {_BOOL, _STRING}:
        return None
    value, at = _varint(stored, 1)
    if tag == _STRING:
        return stored[at : at + value].decode()
    return bool(value) if tag == _BOOL else value


def decode_column(stored: Sequence[bytes | None], dtype: FeatureType) -> tuple[Array, Mask]:
    """Return stored values as a column and where it is null.

    Null is also what is of another kind than declared: the view's schema changed and its rows did not yet.

    Returns
    -------
    values : ndarray of shape (len(stored),)
        int64 for whole numbers and times (seconds), float64, bool, or object of str; unspecified at nulls.
    nulls : bool ndarray of shape (len(stored),)
    """
    kind = _DTYPES[dtype]
    values = np.zeros(len(stored), dtype=kind) if kind is not object else np.full(len(stored), "", dtype=object)
    nulls = np.ones(len(stored), dtype=np.bool_)
    wanted = {np.int64: (int,), np.float64: (float, int), np.bool_: (bool,), object: (str,)}[kind]
    null = NULL_TIME_S if dtype == "unix_timestamp" else None
    for row, each in enumerate(stored):
        value = decode_value(each) if each else None
        if type(value) in wanted:
            values[row] = value
            nulls[row] = value != value or value == null  # noqa: PLR0124 NaN is null
    return values, nulls


def _varint(stored: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = stored[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value - (1 << 64) if value >= 1 << 63 else value, at
