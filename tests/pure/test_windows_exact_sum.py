"""Exact sums against integers of any size, and strings as numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from millstream.core.identity import id_hashes
from millstream.core.jit import kernel
from millstream.core.windows.exact_sum import LIMIT, NEGATED, WORDS, accumulate, representable, rounded

BELOW = math.nextafter(LIMIT, 0.0)
finite = st.one_of(
    st.floats(min_value=-BELOW, max_value=BELOW),
    st.builds(math.ldexp, st.sampled_from([1.0, -1.0, 1.5, math.nextafter(1.0, 0.0)]), st.integers(-185, 89)),
)


@kernel
def total(bits: NDArray[np.int64], words: NDArray[np.uint64]) -> float:
    for i in range(len(bits)):
        accumulate(words, 1, bits[i])
    return rounded(words, 1)


def units(value: float) -> int:
    return round(Fraction(value) * 2**128)


@settings(deadline=None)  # the first call compiles
@given(st.lists(finite, max_size=12), st.lists(st.booleans(), min_size=12, max_size=12))
@example([BELOW] * 12, [False] * 12)
@example([2.0**53, 1.0, 2.0**-129], [False] * 12)
@example([2.0**60, 2.0**7, 2.0**-100], [False] * 12)
@example([2.0**60, 2.0**7, 2.0**-100], [False, False, True] * 4)
@example([-1.0, 2.0**-128], [False] * 12)
@example([1.0, -1.0], [False] * 12)
def test_a_sum_is_the_integer_it_should_be_and_rounds_to_nearest(values: list[float], removed: list[bool]) -> None:
    words = np.zeros(WORDS + 2, dtype=np.uint64)
    words[[0, -1]] = 7
    bits = np.array(values, dtype=np.float64).view(np.int64)
    mask = np.array([NEGATED if gone else 0 for gone in removed[: len(values)]], dtype=np.int64)
    found = total(bits ^ mask, words)
    want = sum(-units(v) if gone else units(v) for v, gone in zip(values, removed, strict=False))
    assert sum(int(word) << (64 * k) for k, word in enumerate(words[1:-1])) == want % 2**256
    assert found == float(Fraction(want, 2**128))
    assert math.copysign(1.0, found) == (-1.0 if want < 0 else 1.0)
    assert words[0] == words[-1] == 7


def test_what_can_be_summed() -> None:
    found = representable(np.array([0.0, math.nan, BELOW, -BELOW, LIMIT, -LIMIT, math.inf, -math.inf]))
    assert found.tolist() == [True, True, True, True, False, False, False, False]


def test_ids_are_the_same_on_every_machine() -> None:
    assert id_hashes(np.array([5, -1])).tolist() == [5, -1]
    texts = np.array(["", "a", "é"], dtype=object)
    # first halves of MurmurHash3_x64_128 with seed 0
    assert id_hashes(texts).tolist() == [0, -8839064797231613815, -3956277427552623640]


@pytest.mark.parametrize("empty", [np.zeros(0, dtype=np.int64), np.zeros(0, dtype=object)])
def test_nothing_has_no_ids(empty: NDArray[np.int64]) -> None:
    assert id_hashes(empty).shape == (0,)
