"""Linear models as columns: what River's scaler and linear classifier answer row by row, for a micro-batch at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SATURATED: Final = 30.0
"""River answers 0 and 1 beyond this logit."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A scaled dot product behind a logistic link.

    Parameters
    ----------
    features : tuple of str, length f
        In the order in which terms are added, which is that of the declared features.
    shift, scale, weight : tuple of float, length f
        A feature x contributes ``weight * (x - shift) / scale``, nothing where ``scale`` is 0.
    intercept : float
    """

    features: tuple[str, ...]
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    weight: tuple[float, ...]
    intercept: float

    def predict(self, columns: Mapping[str, Floats]) -> Floats:
        """Return the probability of the positive class, float64 of shape (n,) in [0, 1], or NaN if the model diverged.

        Terms are added feature by feature, as River adds them, so that large terms that cancel do so alike.

        Parameters
        ----------
        columns : mapping of str to float64 ndarray of shape (n,)
            At least ``features``. A value that is not finite contributes nothing, as a feature that River is not given.

        Examples
        --------
        >>> model = Linear(("x",), (1.0,), (2.0,), (4.0,), 0.0)
        >>> model.predict({"x": np.array([1.0, np.nan, 100.0])}).tolist()
        [0.5, 0.5, 1.0]
        """
        length = len(columns[self.features[0]]) if self.features else 0
        logit = np.zeros(length, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # a diverged model is NaN here as it is in River
            for name, shift, scale, weight in zip(self.features, self.shift, self.scale, self.weight, strict=True):
                if scale:
                    x = columns[name]
                    logit += np.where(np.isfinite(x), weight * ((x - shift) / scale), 0.0)
            logit += self.intercept
            inner = 1 / (1 + np.exp(-np.clip(logit, -_SATURATED, _SATURATED)))
        return np.where(logit < -_SATURATED, 0.0, np.where(logit > _SATURATED, 1.0, inner))
