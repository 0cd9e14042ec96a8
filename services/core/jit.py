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
