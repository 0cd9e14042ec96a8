"""The machine code of Avro encoding: one small program, run over the rows of word slots.

A program is a matrix of int64, one row per step, columns ``PUT, NULL_BRANCH, SLOT, NULL_SLOT, FIRST, COUNT``; the last
two are start and length in the constants, for a `CONSTANT`; ``COUNT`` is the size of a `PUT_FIXED`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from millstream.core.jit import inline, kernel

CONSTANT, PUT_INT, PUT_LONG, PUT_FLOAT, PUT_DOUBLE, PUT_BOOLEAN, PUT_ENUM, PUT_TEXT, PUT_FIXED = range(9)
PUT, NULL_BRANCH, SLOT, NULL_SLOT, FIRST, COUNT, WIDTH = range(7)

_I32 = 1 << 31


@inline
def _put_varint(out: NDArray[np.uint8], at: int, value: int) -> int:
    rest = (np.uint64(value) << np.uint64(1)) ^ np.uint64(np.int64(value) >> np.int64(63))
    while rest >= np.uint64(0x80):
        out[at] = np.uint8(rest & np.uint64(0x7F)) | np.uint8(0x80)
        rest >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(rest)
    return at + 1


@kernel
def encode(  # noqa: PLR0912 - one branch per Avro type
    program: NDArray[np.int64],
    constants: NDArray[np.uint8],
    text: NDArray[np.uint8],
    cursors: NDArray[np.int64],
    words: NDArray[np.int64],
    nulls: NDArray[np.bool_],
    out: NDArray[np.uint8],
    ends: NDArray[np.int64],
) -> tuple[int, int]:
    """Encode n rows end to end into ``out`` (large enough by construction) and their ends into ``ends``.

    The word of a text is its length; its bytes lie in ``text``, row after row from the slot's cursor on. Returns
    (-1, -1), or the row and step whose value does not fit its type.
    """
    reals = words.view(np.float64)
    bits32 = np.zeros(1, dtype=np.int32)
    real32 = bits32.view(np.float32)
    at = 0
    for row in range(len(ends)):
        for step in range(len(program)):
            put = program[step, PUT]
            slot = program[step, SLOT]
            if put == CONSTANT:
                first = program[step, FIRST]
                for k in range(program[step, COUNT]):
                    out[at + k] = constants[first + k]
                at += program[step, COUNT]
                continue
            value = words[slot, row]
            first = cursors[slot]
            if put >= PUT_TEXT:
                cursors[slot] += value  # also past what may lie under a null
            null_branch = program[step, NULL_BRANCH]
            if null_branch >= 0:
                is_null = nulls[program[step, NULL_SLOT], row]
                out[at] = np.uint8(2) if (null_branch == 1) == is_null else np.uint8(0)
                at += 1
                if is_null:
                    continue
            if put == PUT_DOUBLE:
                for k in range(8):
                    out[at + k] = np.uint8((value >> np.int64(8 * k)) & np.int64(0xFF))
                at += 8
            elif put == PUT_FLOAT:
                real32[0] = np.float32(reals[slot, row])
                for k in range(4):
                    out[at + k] = np.uint8((bits32[0] >> np.int32(8 * k)) & np.int32(0xFF))
                at += 4
            elif put == PUT_BOOLEAN:
                out[at] = np.uint8(value)
                at += 1
            elif put >= PUT_TEXT:
                if put == PUT_TEXT:
                    at = _put_varint(out, at, value)
                elif value != program[step, COUNT]:
                    return row, step
                for k in range(value):
                    out[at + k] = text[first + k]
                at += value
            else:
                if (put == PUT_INT and (value < -_I32 or value >= _I32)) or (put == PUT_ENUM and value < 0):
                    return row, step
                at = _put_varint(out, at, value)
        ends[row] = at
    return -1, -1
