"""The machine code that reads the parts of a record, and steps over a value of any type; see `skip_table`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from millstream.core.avro.faults import (
    BLOCK,
    BOOLEAN,
    BRANCH,
    DEPTH,
    INT_RANGE,
    LENGTH,
    SYMBOL_INDEX,
    TRUNCATED,
    UTF8,
    VARINT,
)
from millstream.core.jit import inline, kernel

(
    SKIP_NOTHING,
    SKIP_BOOLEAN,
    SKIP_INT,
    SKIP_LONG,
    SKIP_FLOAT,
    SKIP_DOUBLE,
    SKIP_STRING,
    SKIP_BYTES,
    SKIP_ENUM,
    SKIP_FIXED,
    SKIP_ARRAY,
    SKIP_MAP,
    SKIP_RECORD,
    SKIP_UNION,
    SKIP_EDGE,
) = range(15)
REFERRING = (SKIP_ARRAY, SKIP_MAP, SKIP_RECORD, SKIP_UNION, SKIP_EDGE)
"""Kinds whose ``FIRST`` is a row."""
KIND, FIRST, COUNT, WIDTH = range(4)
MOST_NESTED = 256
"""How deeply values may be nested; one that is nested more deeply is refused."""

_I32 = 1 << 31


@inline
def varint(data: NDArray[np.uint8], at: int, end: int) -> tuple[int, int]:
    """Return (value, position after it), or (fault, -1)."""
    value = np.uint64(0)
    shift = np.uint64(0)
    for i in range(10):
        if at >= end:
            return TRUNCATED, -1
        byte = np.uint64(data[at])
        at += 1
        if i == 9 and byte > np.uint64(1):
            return VARINT, -1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            return int(np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1))), at
        shift += np.uint64(7)
    return VARINT, -1


@inline
def utf8(data: NDArray[np.uint8], at: int, end: int) -> int:
    """Return 0 for ASCII, 1 for other well-formed UTF-8 (Unicode standard, table 3-7), -1 for anything else."""
    wide = 0
    while at < end:
        byte = data[at]
        at += 1
        if byte < 0x80:
            continue
        wide = 1
        low, high, more = 0x80, 0xBF, 0
        if 0xC2 <= byte <= 0xDF:
            more = 1
        elif 0xE0 <= byte <= 0xEF:
            more = 2
            low = 0xA0 if byte == 0xE0 else 0x80  # no overlong forms
            high = 0x9F if byte == 0xED else 0xBF  # no surrogates
        elif 0xF0 <= byte <= 0xF4:
            more = 3
            low = 0x90 if byte == 0xF0 else 0x80
            high = 0x8F if byte == 0xF4 else 0xBF  # nothing past U+10FFFF
        if more == 0 or at + more > end or data[at] < low or data[at] > high:
            return -1
        for k in range(1, more):
            if data[at + k] & 0xC0 != 0x80:
                return -1
        at += more
    return wide


@kernel
def skip(  # noqa: PLR0911, PLR0912, PLR0915 - one branch per Avro type, one return per fault
    data: NDArray[np.uint8], at: int, end: int, types: NDArray[np.int64], root: int, stack: NDArray[np.int64]
) -> int:
    """Return the position after one value of the type in row ``root``, or a fault, negative.

    ``stack`` of shape (n, 3) is room for n containers that are open: row, children done (of a record) or items left in
    the block, and where the block must end (-1: not written).
    """
    depth = 0
    node = root
    while True:
        kind = types[node, KIND]
        if kind == SKIP_UNION:
            branch, at = varint(data, at, end)
            if at < 0:
                return -branch
            if branch < 0 or branch >= types[node, COUNT]:
                return -BRANCH
            node = types[types[node, FIRST] + branch, FIRST]
            continue
        if SKIP_ARRAY <= kind <= SKIP_RECORD:
            if depth == len(stack):
                return -DEPTH
            stack[depth, 0] = node
            stack[depth, 1] = 0
            stack[depth, 2] = -1
            depth += 1
        elif kind in (SKIP_FLOAT, SKIP_DOUBLE, SKIP_FIXED, SKIP_BOOLEAN):
            size = 1 if kind == SKIP_BOOLEAN else 4 if kind == SKIP_FLOAT else 8
            if kind == SKIP_FIXED:
                size = types[node, COUNT]
            if size > end - at:
                return -TRUNCATED
            if kind == SKIP_BOOLEAN and data[at] > 1:
                return -BOOLEAN
            at += size
        elif kind != SKIP_NOTHING:
            value, at = varint(data, at, end)
            if at < 0:
                return -value
            if kind == SKIP_INT and (value < -_I32 or value >= _I32):
                return -INT_RANGE
            if kind == SKIP_ENUM and (value < 0 or value >= types[node, COUNT]):
                return -SYMBOL_INDEX
            if kind in (SKIP_STRING, SKIP_BYTES):
                if value < 0:
                    return -LENGTH
                if value > end - at:
                    return -TRUNCATED
                if kind == SKIP_STRING and utf8(data, at, at + value) < 0:
                    return -UTF8
                at += value
        node = -1
        while depth > 0 and node < 0:
            top = depth - 1
            container = stack[top, 0]
            if types[container, KIND] == SKIP_RECORD:
                done = stack[top, 1]
                if done < types[container, COUNT]:
                    stack[top, 1] = done + 1
                    node = types[types[container, FIRST] + done, FIRST]
                else:
                    depth -= 1
                continue
            if stack[top, 1] == 0:
                if stack[top, 2] >= 0 and stack[top, 2] != at:
                    return -BLOCK
                count, at = varint(data, at, end)
                if at < 0:
                    return -count
                if count == 0:
                    depth -= 1
                    continue
                stack[top, 2] = -1
                if count < 0:
                    size, at = varint(data, at, end)
                    if at < 0:
                        return -size
                    if size < 0 or size > end - at:
                        return -TRUNCATED
                    stack[top, 2] = at + size
                    count = -count
                    if count < 0:  # the least int64 has no positive
                        return -LENGTH
                if types[container, KIND] == SKIP_ARRAY and types[types[container, FIRST], KIND] == SKIP_NOTHING:
                    continue  # however many: they take no bytes
                stack[top, 1] = count
            stack[top, 1] -= 1
            if types[container, KIND] == SKIP_MAP:
                length, at = varint(data, at, end)
                if at < 0:
                    return -length
                if length < 0:
                    return -LENGTH
                if length > end - at:
                    return -TRUNCATED
                if utf8(data, at, at + length) < 0:
                    return -UTF8
                at += length
            node = types[container, FIRST]
        if node < 0:
            return at
