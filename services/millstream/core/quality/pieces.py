"""Values too large for one record, split into pieces and joined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_COUNT_BYTES: Final = 4


def piece_key(key: bytes, place: int) -> bytes:
    """Return the key of a piece."""
    return place.to_bytes(_COUNT_BYTES, "big") + key


def split(key: bytes, value: bytes, most_bytes: int) -> dict[bytes, bytes]:
    """Return a value as pieces of at most so many bytes, each telling how many there are.

    Examples
    --------
    >>> joined(split(b"k", b"abcde", 2))
    {b'k': b'abcde'}
    """
    starts = range(0, max(1, len(value)), most_bytes)
    count = len(starts).to_bytes(_COUNT_BYTES, "big")
    return {piece_key(key, i): count + value[start : start + most_bytes] for i, start in enumerate(starts)}


def joined(pieces: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return whole values; of one that was shorter the last time, pieces left over do not count.

    Raises
    ------
    KeyError
        If a piece is missing.
    """
    whole = {}
    for name, first in pieces.items():
        if int.from_bytes(name[:_COUNT_BYTES], "big") == 0:
            key, count = name[_COUNT_BYTES:], int.from_bytes(first[:_COUNT_BYTES], "big")
            whole[key] = b"".join(pieces[piece_key(key, i)][_COUNT_BYTES:] for i in range(count))
    return whole


def key_of(name: bytes) -> bytes:
    """Return the key that a piece belongs to."""
    return name[_COUNT_BYTES:]
