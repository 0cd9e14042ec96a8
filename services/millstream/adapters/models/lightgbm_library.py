"""LightGBM's library through its C interface [1]_, without its Python package.

The package imports scikit-learn, pandas and Arrow: seconds and 150 MB that a process which only answers has no use for;
and ``Booster.predict`` spends 15 to 20 us on checks and conversions, for which a micro-batch of a few events would pay
more than for its trees.

References
----------
.. [1] LightGBM, "C API", c_api.h.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import logging
import weakref
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from millstream.errors import Refused

logger = logging.getLogger(__name__)

_FLOAT64: Final = ctypes.c_int(1)
_COLUMN_MAJOR: Final = ctypes.c_int(0)
_NORMAL: Final = ctypes.c_int(0)
_FIRST: Final = ctypes.c_int(0)
_ALL: Final = ctypes.c_int(-1)


def _log(words: bytes) -> None:
    logger.debug("LightGBM: %s", words.decode(errors="replace").rstrip())


_LOG: Final = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(_log)  # kept, because the library keeps calling it


@functools.cache
def _library() -> Any:
    """Load the library from where its own package finds it."""
    package = importlib.util.find_spec("lightgbm")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("no module named 'lightgbm'", name="lightgbm")
    finder = importlib.util.spec_from_file_location("_lightgbm_libpath", Path(package.origin).with_name("libpath.py"))
    if finder is None or finder.loader is None:
        raise ModuleNotFoundError("lightgbm has no module libpath", name="lightgbm.libpath")
    module = importlib.util.module_from_spec(finder)
    finder.loader.exec_module(module)
    found: Any = module._LIB
    found.LGBM_GetLastError.restype = ctypes.c_char_p
    found.LGBM_RegisterLogCallback(_LOG)
    return found


def _checked(failed: int) -> None:
    if failed:
        reason = _library().LGBM_GetLastError() or b"no reason given"
        raise Refused(f"LightGBM: {reason.decode(errors='replace')}")


class LibraryModel:
    """A model held by the library. It may be used from one thread at a time.

    Parameters
    ----------
    body : str
        LightGBM's text format, found whole: the library reads past the end of one that is not.
    features : int
        How many columns it reads.
    threads : int
        OpenMP threads per prediction, >= 1.

    Attributes
    ----------
    outputs : int
        Per row.

    Raises
    ------
    Refused
        With the library's own words.
    """

    def __init__(self, body: str, features: int, threads: int) -> None:
        self._handle = ctypes.c_void_p()
        library, trees, outputs = _library(), ctypes.c_int(), ctypes.c_int()
        _checked(
            library.LGBM_BoosterLoadModelFromString(
                ctypes.c_char_p(body.encode()), ctypes.byref(trees), ctypes.byref(self._handle)
            )
        )
        weakref.finalize(self, library.LGBM_BoosterFree, self._handle)
        _checked(library.LGBM_BoosterNumModelPerIteration(self._handle, ctypes.byref(outputs)))
        self.outputs = outputs.value
        self._columns = ctypes.c_int32(features)
        self._parameters = ctypes.c_char_p(f"num_threads={threads}".encode())
        self._length = ctypes.c_int64(0)
        self._length_at = ctypes.byref(self._length)

    def predict(self, columns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the output for float64 columns of shape (features, n), C-contiguous, one output a row.

        Raises
        ------
        Refused
            With the library's own words.
        """
        count = columns.shape[1]
        scores = np.empty(count, dtype=np.float64)
        if count:
            _checked(
                _library().LGBM_BoosterPredictForMat(
                    self._handle,
                    ctypes.c_void_p(columns.ctypes.data),
                    _FLOAT64,
                    ctypes.c_int32(count),
                    self._columns,
                    _COLUMN_MAJOR,
                    _NORMAL,
                    _FIRST,
                    _ALL,
                    self._parameters,
                    self._length_at,
                    ctypes.c_void_p(scores.ctypes.data),
                )
            )
        return scores
