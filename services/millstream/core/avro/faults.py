"""Codes of what is wrong with a record, as kernels return them; `millstream.core.avro.rejection` has their texts."""

OK, NULL_VALUE, OVERSIZE, FRAMING, UNKNOWN, INCOMPATIBLE = range(6)
TRUNCATED, VARINT, INT_RANGE, BRANCH, LENGTH, UTF8, BOOLEAN, SYMBOL_INDEX, SYMBOL, NULL, TRAILING = range(6, 17)
BLOCK, DEPTH, MISFIT, INEXACT, TOO_LARGE, NOT_HELD = range(17, 23)
