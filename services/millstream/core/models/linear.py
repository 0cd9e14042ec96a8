"""Scoring of River's scaler and linear classifier for a micro-batch at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SATURATED: Final = 30.0
"""River answers 0 and 1 beyond this logit."""


_CLIP: Final = 1e-6
"""Scores are taken to be this far from 0 and 1, so that a sure champion is no more than 14 on the logit."""


def logits(scores: Floats) -> Floats:
    """Return the log-odds of scores in [0, 1], float64 of shape (n,) in [-14, 14]; NaN stays.

    One at a time: a vectorised logarithm may differ in its last bit from place to place in an array, and what a model
    learns must not depend on how its examples were cut into batches.

    Examples
    --------
    >>> logits(np.array([0.5, np.nan, 1.0])).round(2).tolist()
    [0.0, nan, 13.82]
    """
    log = math.log
    return np.array([log(p / (1 - p)) for p in np.clip(scores, _CLIP, 1 - _CLIP).tolist()], dtype=np.float64)


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
