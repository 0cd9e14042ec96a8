"""Partition of a key: murmur2, as the Java client's default partitioner.

References
----------
.. [1] Apache Kafka, ``org.apache.kafka.common.utils.Utils.murmur2``; librdkafka ``partitioner=murmur2_random``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.core.jit import kernel

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


@kernel
def _murmur2(data: Any, start: int, end: int) -> int:
    length = end - start
    h = (_SEED ^ length) & _MASK
    at = start
    for _ in range(length // 4):
        k = int(data[at]) | (int(data[at + 1]) << 8) | (int(data[at + 2]) << 16) | (int(data[at + 3]) << 24)
        k = (k * _M) & _MASK
        k ^= k >> 24
        k = (k * _M) & _MASK
        h = (h * _M) & _MASK
        h ^= k
        at += 4
    rest = end - at
    if rest == 3:
        h ^= int(data[at + 2]) << 16
    if rest >= 2:
        h ^= int(data[at + 1]) << 8
    if rest >= 1:
        h ^= int(data[at])
        h = (h * _M) & _MASK
    h ^= h >> 13
    h = (h * _M) & _MASK
    h ^= h >> 15
    return h & 0x7FFFFFFF


@kernel
def _partitions(data: NDArray[np.uint8], ends: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    out = np.empty(len(ends), dtype=np.int64)
    start = 0
    for i in range(len(ends)):
        out[i] = _murmur2(data, start, ends[i]) % count
        start = ends[i]
    return out


def partition_of(keys: Sequence[bytes], count: int) -> NDArray[np.int64]:
    """Return the partition of each key.

    Parameters
    ----------
    keys : sequence of bytes, length n
        Message keys; none may be None.
    count : int
        Number of partitions, >= 1.

    Returns
    -------
    int64 ndarray of shape (n,)
        Values in [0, count).

    Examples
    --------
    >>> partition_of([b"21", b"foobar", b"a-little-bit-long-string"], 4).tolist()
    [0, 2, 0]
    """
    if not keys:
        return np.zeros(0, dtype=np.int64)
    data = np.frombuffer(b"".join(keys), dtype=np.uint8)
    ends = np.cumsum(np.fromiter(map(len, keys), dtype=np.int64, count=len(keys)))
    return _partitions(data, ends, count)
