"""Multivariate drift: the reconstruction error of features from principal components.

Each feature may look as ever while what ties them together is gone. The components learnt from the reference rebuild
events of the same kind well and others badly; the error per event is a column like any other, with a profile and the
monitors of a feature. That costs a product of matrices per batch, where a domain classifier would have to be trained
again for every window and its cross-validated AUC recalibrated. It is blind to changes inside the retained components
(which features' own monitors see) and to ties that are not linear.

References
----------
.. [1] NannyML, "Multivariate drift detection: data reconstruction with PCA", documentation (65 % of the variance).
.. [2] Jackson, Mudholkar (1979), "Control procedures for residuals associated with principal component analysis",
       Technometrics 21.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from millstream.core.batch import Floats
from millstream.core.jit import kernel

COLUMN: Final = "reconstruction_error"
_FAR: Final = 5.0
_LARGE = 1e150


@kernel
def _distances(scaled: Floats, components: Floats) -> Floats:
    # Row by row: a product of matrices may round a row differently among other rows, and batches make no difference.
    found = np.empty(len(scaled))
    left = np.empty(scaled.shape[1])
    for row in range(len(scaled)):
        left[:] = scaled[row]
        for k in range(len(components)):
            along = 0.0
            for i in range(len(left)):
                along += components[k, i] * scaled[row, i]
            for i in range(len(left)):
                left[i] -= along * components[k, i]
        total = 0.0
        for i in range(len(left)):
            total += left[i] * left[i]
        found[row] = np.sqrt(total)
    return found


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Principal components of standardised features.

    Parameters
    ----------
    mean, std : tuple of float, length c
        Of the features that are not null; ``std`` is 1 where a feature is constant.
    components : tuple of k tuples of float, length c
        Orthonormal.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    components: tuple[tuple[float, ...], ...]

    @staticmethod
    def fit(values: Floats, variance: float = 0.65) -> Reconstruction:
        """Fit to a reference.

        Parameters
        ----------
        values : float64 ndarray of shape (n, c), n >= 1
            NaN is null and stands for the mean.
        variance : float, in (0, 1)
            As many components as explain this share of the variance.
        """
        finite = np.where(np.isfinite(values), values, np.nan)
        seen = np.isfinite(values).any(axis=0)
        mean, std = np.zeros(values.shape[1]), np.ones(values.shape[1])
        peak = np.nanmax(np.abs(finite[:, seen]), axis=0)
        # Sums and squares of the largest doubles would overflow; others are left as they are.
        unit = np.where(peak > _LARGE, peak, 1.0)
        mean[seen] = np.nanmean(finite[:, seen] / unit, axis=0) * unit
        std[seen] = np.nanstd(finite[:, seen] / unit, axis=0) * unit
        std[std == 0.0] = 1.0
        plain = Reconstruction(tuple(mean.tolist()), tuple(std.tolist()), ())
        scaled = plain.standardise(values)
        powers, vectors = np.linalg.eigh(scaled.T @ scaled / len(scaled))
        powers, vectors = powers[::-1], vectors[:, ::-1]
        explained = np.cumsum(powers) / max(float(powers.sum()), np.finfo(np.float64).tiny)
        count = min(int(np.searchsorted(explained, variance)) + 1, len(powers))
        return Reconstruction(plain.mean, plain.std, tuple(map(tuple, vectors[:, :count].T.tolist())))

    @staticmethod
    def of_json(raw: Mapping[str, Any]) -> Reconstruction:
        """Return the reconstruction whose JSON object this is; TypeError, KeyError if it is none."""
        return Reconstruction(
            tuple(map(float, raw["mean"])),
            tuple(map(float, raw["std"])),
            tuple(tuple(map(float, each)) for each in raw["components"]),
        )

    def standardise(self, values: Floats) -> Floats:
        """Return values in standard deviations from the mean, nulls as 0, no further out than 5."""
        with np.errstate(over="ignore"):  # which is far out, too
            scaled = (values - np.array(self.mean)) / np.array(self.std)
        return np.asarray(np.clip(np.nan_to_num(scaled, nan=0.0, posinf=_FAR, neginf=-_FAR), -_FAR, _FAR))

    def error(self, values: Floats) -> Floats:
        """Return how far each row is from its reconstruction, float64 of shape (n,), >= 0.

        Parameters
        ----------
        values : float64 ndarray of shape (n, c)
            NaN is null.
        """
        components = np.array(self.components, dtype=np.float64).reshape(-1, len(self.mean))
        return _distances(np.ascontiguousarray(self.standardise(values)), components)
