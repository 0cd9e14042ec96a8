"""The machine code of Avro decoding: one small program per writer schema, run over records lying end to end.

A program is a matrix of int64, one row per step, columns ``READ, NULL_BRANCH, TARGET, SLOT, NULL_SLOT, AUX, COUNT``.
Every read is bounds-checked; a fault ends that record with a code and touches no other. ``AUX`` and ``COUNT`` depend on
what is read: an enum's codes and symbols; a default's place or value and length (-1: null); a fixed's size (``COUNT``);
of a skipped value the row of its type; of a wide union the first branch's step and the number of branches. Of an int or
a long ``AUX`` is what its target needs: the factor, or how many bits a real has; ``COUNT`` 1 marks an int result.

Stricter than most decoders on purpose, because a corrupt record must not become a plausible one: an ``int`` must fit
32 bits, a varint 64, booleans are 0 or 1, enum and union indices are in range, and nothing may be left over.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from millstream.core.avro.faults import (
    BOOLEAN,
    BRANCH,
    FRAMING,
    INCOMPATIBLE,
    INEXACT,
    INT_RANGE,
    LENGTH,
    MISFIT,
    NOT_HELD,
    NULL,
    NULL_VALUE,
    OK,
    OVERSIZE,
    SYMBOL,
    SYMBOL_INDEX,
    TOO_LARGE,
    TRAILING,
    TRUNCATED,
    UNKNOWN,
    UTF8,
)
from millstream.core.avro.framing_kernel import find_schema, frame, little_endian
from millstream.core.avro.skip_kernel import skip, utf8, varint
from millstream.core.jit import kernel

READ_INT, READ_LONG, READ_FLOAT, READ_DOUBLE, READ_BOOLEAN, READ_STRING, READ_BYTES, READ_ENUM = range(8)
READ_DEFAULT, READ_FIXED, READ_SKIP, READ_MISFIT = range(8, 12)
TO_NOTHING, TO_INT, TO_REAL, TO_MULTIPLIED, TO_DIVIDED, TO_TEXT, TO_BYTES = range(7)
READ, NULL_BRANCH, TARGET, SLOT, NULL_SLOT, AUX, COUNT, WIDTH = range(8)
NO_UNION, WIDE_UNION = -1, -2
"""In place of a null branch: the field is no union; it is one whose branches have a step each, from ``AUX`` on."""

_I32 = 1 << 31
_MOST = (1 << 63) - 1


@kernel
def decode(  # noqa: PLR0912, PLR0915 - split up it is 2.5 times slower: numba hands arrays over by parts
    data: NDArray[np.uint8],
    lengths: NDArray[np.int64],
    max_bytes: int,
    known: NDArray[np.int64],
    program: NDArray[np.int64],
    symbols: NDArray[np.int64],
    types: NDArray[np.int64],
    constants_at: int,
    words: NDArray[np.int64],
    nulls: NDArray[np.bool_],
    counts: NDArray[np.int64],
    codes: NDArray[np.int64],
    where: NDArray[np.int64],
    found: NDArray[np.int64],
    stack: NDArray[np.int64],
) -> int:
    """Decode records into columns; return how many succeeded (m).

    Parameters
    ----------
    data, lengths
        Framed records end to end and their n lengths (-1: no value), then constants from ``constants_at`` on.
    known : (k, 4)
        Kind (0 fingerprint, 1 registry), id, first and last-plus-one program row (-1: known to be unreadable).
    program, symbols
        Steps of all programs; writer-to-reader enum codes (-1: no such symbol).
    types, stack
        What `skip` needs.
    words, nulls : out
        Column slots by output row, of which the first m are filled. Reals are stored as their bits.
    counts : out
        Per null slot its nulls, then per word slot 1 if any text there is not ASCII.
    codes, where : out
        Per record a fault and the program row, schema id or length it is about.
    found : out
        The number that a reader's type cannot hold, where that is the fault.
    """
    bits32 = np.zeros(1, dtype=np.int32)
    real32 = bits32.view(np.float32)
    reals = words.view(np.float64)
    null_slots = nulls.shape[0]
    row = 0
    start = 0
    last = -1
    for i in range(len(lengths)):
        length = lengths[i]
        end = start + max(length, 0)
        kind, number, at = frame(data, start, length)
        start = end
        where[i] = length
        if length < 0:
            codes[i] = NULL_VALUE
            continue
        if length > max_bytes:
            codes[i] = OVERSIZE
            continue
        if kind < 0:
            codes[i] = FRAMING
            continue
        if last < 0 or known[last, 0] != kind or known[last, 1] != number:
            last = find_schema(known, kind, number)
        if last < 0:
            codes[i] = UNKNOWN
            where[i] = number
            continue
        if known[last, 2] < 0:
            codes[i] = INCOMPATIBLE
            where[i] = last
            continue
        fault = OK
        for s in range(known[last, 2], known[last, 3]):
            read = program[s, READ]
            target = program[s, TARGET]
            slot = program[s, SLOT]
            null_slot = program[s, NULL_SLOT]
            where[i] = s
            p = s
            is_null = False
            null_branch = program[s, NULL_BRANCH]
            if null_branch != NO_UNION:
                branch, at = varint(data, at, end)
                if at < 0:
                    fault = branch
                    break
                if branch < 0 or branch >= (program[s, COUNT] if null_branch == WIDE_UNION else 2):
                    fault = BRANCH
                    break
                is_null = branch == null_branch
                if null_branch == WIDE_UNION:
                    p = program[s, AUX] + branch
                    where[i] = p
                    read = program[p, READ]
                    target = program[p, TARGET]
                    if read == READ_MISFIT:
                        fault = MISFIT
                        break
            if read == READ_DEFAULT:
                is_null = program[p, COUNT] < 0
            if is_null:
                if target == TO_NOTHING:
                    continue
                if null_slot < 0:
                    fault = NULL
                    break
                nulls[null_slot, row] = True
                if target == TO_REAL:
                    reals[slot, row] = np.nan  # should a mask be forgotten, not a plausible number
                else:
                    words[slot, row] = 0
                    if target >= TO_TEXT:
                        words[slot + 1, row] = 0
                continue
            if null_slot >= 0:
                nulls[null_slot, row] = False
            if read == READ_DOUBLE:
                if at + 8 > end:
                    fault = TRUNCATED
                    break
                if target == TO_REAL:
                    words[slot, row] = little_endian(data, at, 8)
                at += 8
            elif read == READ_FLOAT:
                if at + 4 > end:
                    fault = TRUNCATED
                    break
                if target == TO_REAL:
                    bits32[0] = np.int32(little_endian(data, at, 4))
                    reals[slot, row] = float(real32[0])
                at += 4
            elif read == READ_BOOLEAN:
                if at >= end:
                    fault = TRUNCATED
                    break
                if data[at] > 1:
                    fault = BOOLEAN
                    break
                if target == TO_INT:
                    words[slot, row] = np.int64(data[at])
                at += 1
            elif read >= READ_DEFAULT:
                if read == READ_SKIP:
                    at = skip(data, at, end, types, program[p, AUX], stack)
                    if at < 0:
                        fault = -at
                        break
                elif read == READ_FIXED:
                    if program[p, COUNT] > end - at:
                        fault = TRUNCATED
                        break
                    if target == TO_BYTES:
                        words[slot, row] = at
                        words[slot + 1, row] = program[p, COUNT]
                    at += program[p, COUNT]
                elif target >= TO_TEXT:
                    first = constants_at + program[p, AUX]
                    words[slot, row] = first
                    words[slot + 1, row] = program[p, COUNT]
                    if target == TO_TEXT and utf8(data, first, first + program[p, COUNT]) > 0:
                        counts[null_slots + slot] = 1
                else:
                    words[slot, row] = program[p, AUX]  # an int, an enum code, or the bits of a real
            else:
                value, at = varint(data, at, end)
                if at < 0:
                    fault = value
                    break
                if read in (READ_LONG, READ_INT):
                    if read == READ_INT and (value < -_I32 or value >= _I32):
                        fault = INT_RANGE
                        break
                    if target == TO_INT:
                        words[slot, row] = value
                    elif target == TO_REAL:
                        limit = np.int64(1) << program[p, AUX]
                        if value > limit or value < -limit:
                            odd = value // (value & -value)
                            if odd > limit or odd < -limit:
                                fault = NOT_HELD
                                found[i] = value
                                break
                        reals[slot, row] = float(value)
                    elif target == TO_MULTIPLIED:
                        most = _MOST // program[p, AUX]
                        if value > most or value < -most:
                            fault = TOO_LARGE
                            found[i] = value
                            break
                        words[slot, row] = value * program[p, AUX]
                    elif target == TO_DIVIDED:
                        quotient = value // program[p, AUX]
                        if quotient * program[p, AUX] != value:
                            fault = INEXACT
                            found[i] = value
                            break
                        if program[p, COUNT] == 1 and (quotient < -_I32 or quotient >= _I32):
                            fault = TOO_LARGE
                            found[i] = value
                            break
                        words[slot, row] = quotient
                elif read == READ_ENUM:
                    if value < 0 or value >= program[p, COUNT]:
                        fault = SYMBOL_INDEX
                        break
                    if target == TO_INT:
                        symbol = symbols[program[p, AUX] + value]
                        if symbol < 0:
                            fault = SYMBOL
                            break
                        words[slot, row] = symbol
                else:
                    if value < 0:
                        fault = LENGTH
                        break
                    if value > end - at:
                        fault = TRUNCATED
                        break
                    if read == READ_STRING or target == TO_TEXT:
                        wide = utf8(data, at, at + value)
                        if wide < 0:
                            fault = UTF8
                            break
                        if wide > 0 and target == TO_TEXT:
                            counts[null_slots + slot] = 1
                    if target >= TO_TEXT:
                        words[slot, row] = at
                        words[slot + 1, row] = value
                    at += value
        if fault == OK and at != end:
            fault = TRAILING
        codes[i] = fault
        if fault == OK:
            for k in range(null_slots):
                counts[k] += nulls[k, row]
            row += 1
    return row
