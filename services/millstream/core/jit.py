"""Numba's compiler behind typed names, so that kernels type-check under ``mypy --strict``.

Machine code is cached on disk. Numba throws a cached kernel away when the kernel's own file changes, but not when a
helper or constant that was compiled into it from another file does; the stamps made here cover those as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` to machine code, cached on disk, without the GIL and with strict IEEE arithmetic."""
    return cast("Callable[P, R]", _compiled(function))


def inline(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a small helper for use inside kernels."""
    return cast("Callable[P, R]", _compiled(function, inline="never"))


def fused(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a helper into each kernel that uses it: for hot paths, where passing arrays costs more than the work.

    A call counts references to every array it is given, atomically; within one function those pairs cancel out.
    """
    return cast("Callable[P, R]", _compiled(function, forceinline=True))


def _compiled(function: Callable[P, R], **options: Any) -> Any:
    dispatcher = numba.njit(cache=True, nogil=True, fastmath=False, **options)(function)
    file = _cache_file(dispatcher)
    if file is not None:
        names, known = function.__code__.co_names, function.__globals__
        used = tuple((name, _stamp(known[name])) for name in names if name in known)
        file._source_stamp = (file._source_stamp, hashlib.sha256(repr(used).encode()).hexdigest())
    return dispatcher


def _cache_file(value: object) -> Any:
    """Return numba's record of where a function is cached, or None if it is not."""
    return getattr(getattr(value, "_cache", None), "_cache_file", None)


def _stamp(value: object) -> object:
    """Return what to compare of something a kernel refers to: equal stamps, equal machine code."""
    file = _cache_file(value)
    if file is not None:
        return file._source_stamp
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, hashlib.sha256(value.tobytes()).hexdigest()
    if isinstance(value, int | float | str | tuple | np.generic):
        return repr(value)
    return getattr(value, "_fields", None)  # of a NamedTuple; modules and classes else do not change what is compiled
