"""A key's entries as changelog rows, cut into parts that fit a Kafka message.

Row key: UTF-8 text of the entity key, ``/``, number of the part. Row value: header, then the part's entries, oldest
first, each as int64 time (ms), int64 id, and the values' words of 8 bytes (see `values.Layout`): doubles, whole
numbers and null bits; little-endian throughout.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PART_BYTES = 256_000
_VERSION = 1
_HEADER = struct.Struct("<BxHIIIq")  # version, columns, part, parts, entries, feature time


class StoredKey(NamedTuple):
    """What the rows of one key hold: the key's text, its feature time, how many parts, and the entries of each."""

    text: str
    feature_time_us: int
    parts: int
    lengths: int
    bodies: list[memoryview]


def row_key(text: str, part: int) -> bytes:
    """Return the changelog key of a part."""
    return f"{text}/{part}".encode()


def key_text(row: bytes) -> bytes:
    """Return the text of the entity key that a changelog key belongs to, which also keys the stage's input.

    Examples
    --------
    >>> key_text(row_key("a/b", 3))
    b'a/b'
    """
    return row.rpartition(b"/")[0]


def entries_per_part(columns: int) -> int:
    """Return how many entries of so many values a part holds."""
    return max(1, PART_BYTES // (8 * (2 + columns)))


def encode_key(text: str, feature_time_us: int, entries: NDArray[np.int64]) -> Iterable[tuple[bytes, bytes]]:
    """Return the rows of one key; ``entries`` has shape (n, 2 + columns), n >= 1."""
    columns = entries.shape[1] - 2
    if entries.nbytes <= PART_BYTES:  # nearly all of them, and there are many
        header = _HEADER.pack(_VERSION, columns, 0, 1, len(entries), feature_time_us)
        return ((f"{text}/0".encode(), header + entries.tobytes()),)
    return _encode_parts(text, feature_time_us, entries, columns)


def _encode_parts(
    text: str, feature_time_us: int, entries: NDArray[np.int64], columns: int
) -> Iterable[tuple[bytes, bytes]]:
    step = entries_per_part(columns)
    parts = -(-len(entries) // step)
    for part in range(parts):
        piece = entries[part * step : (part + 1) * step]
        header = _HEADER.pack(_VERSION, columns, part, parts, len(piece), feature_time_us)
        yield row_key(text, part), header + piece.tobytes()


def decode_keys(rows: Sequence[tuple[bytes, bytes | None]], columns: int) -> list[StoredKey]:
    """Put rows in any order together again, sorted by key text; of one row key the last row counts, None deletes it.

    Raises
    ------
    ValueError
        If a row is damaged, of another version or width, or a key's parts do not belong together.
    """
    latest: dict[str, dict[int, bytes]] = {}
    for key, value in dict(rows).items():
        if value is not None:
            text, _, part = key.decode().rpartition("/")
            latest.setdefault(text, {})[int(part)] = value
    return [_assemble(text, latest[text], columns) for text in sorted(latest)]


def _assemble(text: str, pieces: dict[int, bytes], columns: int) -> StoredKey:
    lengths, bodies, heads = 0, [], set()
    for part in range(len(pieces)):
        value = pieces.get(part, b"")
        if len(value) < _HEADER.size:
            raise ValueError(f"state of key {text!r}: part {part} of {len(pieces)} is missing or cut short")
        version, width, number, parts, count, feature_time_us = _HEADER.unpack_from(value)
        body = memoryview(value)[_HEADER.size :]
        expected = (_VERSION, columns, part, len(pieces), count * 8 * (2 + columns))
        if (version, width, number, parts, len(body)) != expected or count == 0:
            raise ValueError(f"state of key {text!r}: part {part} of {len(pieces)} does not fit the declared windows")
        heads.add(feature_time_us)
        lengths += count
        bodies.append(body)
    if len(heads) != 1:
        raise ValueError(f"state of key {text!r}: its parts were written at different times")
    return StoredKey(text, heads.pop(), len(pieces), lengths, bodies)
