"""The distribution of a feature at training time: the reference that drift is measured against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 20


@dataclass(frozen=True, slots=True)
class FeatureProfile:
    """One feature's distribution.

    Parameters
    ----------
    edges : tuple of float, length b - 1
        Ascending and distinct quantiles; bin i holds edges[i - 1] < x <= edges[i], open at both ends.
    shares : tuple of float, length b
        Share of each bin among the values that are not null, summing to 1; all 0 if every value is null.
    mean, std : float
        Of the values that are not null (population standard deviation); None when there is none.
    null_share : float
        Share of nulls (NaN), in [0, 1].
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    mean: float | None
    std: float | None
    null_share: float

    @staticmethod
    def of_json(raw: Mapping[str, Any]) -> FeatureProfile:
        """Return the profile whose JSON object this is; TypeError, KeyError if it is none."""
        return FeatureProfile(
            **{**raw, "edges": tuple(map(float, raw["edges"])), "shares": tuple(map(float, raw["shares"]))}
        )

    def bin_shares(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of each of this profile's bins among values that are not NaN, float64 of shape (b,)."""
        present = values[~np.isnan(values)]
        counts = np.bincount(np.searchsorted(self.edges, present, side="left"), minlength=len(self.edges) + 1)
        return counts / max(len(present), 1)


def profile(values: NDArray[np.float64], bins: int = BINS) -> FeatureProfile:
    """Return the profile of a feature.

    Edges are observed values, so that a feature of few distinct values (a flag, a count) gets a bin for each.

    Parameters
    ----------
    values : float64 ndarray of shape (n,)
        NaN is null; infinities are allowed.
    bins : int
        At most so many bins, >= 1.

    Examples
    --------
    >>> profile(np.array([0.0, 0.0, 0.0, 1.0])).shares
    (0.75, 0.25)
    """
    present = values[~np.isnan(values)]
    null_share = 1 - len(present) / len(values) if len(values) else 0.0
    if not len(present):
        return FeatureProfile((), (0.0,), None, None, null_share)
    cuts = np.unique(np.quantile(present, np.arange(1, bins) / bins, method="inverted_cdf"))
    edges = tuple(cuts[cuts < present.max()].tolist())
    blank = FeatureProfile(edges, (), None, None, null_share)
    finite = present[np.isfinite(present)]
    mean, std = (float(finite.mean()), float(finite.std())) if len(finite) else (None, None)
    return FeatureProfile(edges, tuple(blank.bin_shares(values).tolist()), mean, std, null_share)
