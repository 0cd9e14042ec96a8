"""Numba's compiler behind one typed name, so that kernels type-check under ``mypy --strict``."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` to machine code, cached on disk, without the GIL and with strict IEEE arithmetic."""
    return cast("Callable[P, R]", numba.njit(cache=True, nogil=True, fastmath=False)(function))


def inline(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a small helper for use inside kernels."""
    return cast("Callable[P, R]", numba.njit(cache=True, nogil=True, fastmath=False, inline="never")(function))


def fused(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a helper into each kernel that uses it: for hot paths, where passing arrays costs more than the work.

    A call counts references to every array it is given, atomically; within one function those pairs cancel out.
    """
    return cast("Callable[P, R]", numba.njit(cache=True, nogil=True, fastmath=False, forceinline=True)(function))
