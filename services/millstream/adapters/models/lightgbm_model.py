"""A LightGBM text model: what ``Booster.predict`` returns, bit for bit, at a fraction of the price.

Models of the usual kind are answered by `millstream.core.models.forest`, eight times as fast as the library; at load
its answers are compared with the library's on rows that hold edge cases. The library answers for all other models.
"""

from __future__ import annotations

import logging
from typing import Final

import numpy as np
from numpy.typing import NDArray

from millstream.adapters.models.lightgbm_library import LibraryModel
from millstream.core.models.forest import Forest
from millstream.core.models.model_text import fault, feature_names
from millstream.errors import Refused

logger = logging.getLogger(__name__)

_PROBES: Final = 2000


class TextModel:
    """A loaded model with one output per row. It may be used from one thread at a time.

    Parameters
    ----------
    body : str
        LightGBM's text format, never a pickle.
    threads : int
        OpenMP threads per prediction, >= 1; fixed, since the default of one per core starves the other stages.

    Raises
    ------
    Refused
        If the text is not a whole LightGBM model, or one with several outputs per row.
    """

    def __init__(self, body: str, threads: int = 1) -> None:
        if not body.startswith("tree\n"):
            raise Refused("the model's body is not LightGBM's text format (it must begin with the line 'tree')")
        wrong = fault(body)
        if wrong is not None:
            raise Refused(f"the model's body is not a whole LightGBM text: {wrong}")
        self.features: tuple[str, ...] = feature_names(body)
        try:
            self._library = LibraryModel(body, len(self.features), threads)
        except Refused as error:
            raise Refused(f"the model's body is not LightGBM's text format: {error}") from error
        outputs = self._library.outputs
        if outputs != 1:
            raise Refused(f"the model has {outputs} outputs per row; a score is one number: train with one class")
        self._forest = Forest.parse(body)
        if self._forest is not None:
            rows = self._forest.probe(len(self.features), _PROBES)
            if self._forest.predict(rows).tobytes() != self._library.predict(rows).tobytes():
                logger.warning("the model is answered by LightGBM itself: the quicker way gave another result")
                self._forest = None

    def predict(self, columns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the model's output, bit for bit that of ``Booster.predict``.

        Parameters
        ----------
        columns : float64 ndarray of shape (len(self.features), n), C-contiguous
            One row per feature, in the model's order; NaN is missing.

        Returns
        -------
        float64 ndarray of shape (n,)
            Probabilities for a binary model.

        Raises
        ------
        ValueError
            If shape, dtype or layout is another; the library would read past the end.
        Refused
            If the library reports an error.
        """
        count = columns.shape[1] if columns.ndim == 2 else -1
        if count < 0 or len(columns) != len(self.features) or columns.dtype != np.float64:
            raise ValueError(f"need float64 of shape ({len(self.features)}, n), not {columns.dtype} {columns.shape}")
        if not columns.flags.c_contiguous:
            raise ValueError("columns must be C-contiguous")
        return self._library.predict(columns) if self._forest is None else self._forest.predict(columns)
