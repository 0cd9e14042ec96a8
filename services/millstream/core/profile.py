"""The distribution of a feature at training time: the reference that drift is measured against."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.core.drift.seasons import HOURS, hour_of_week

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
        Of the finite values (population standard deviation); None when there is none, or beyond a double.
    null_share : float
        Share of nulls (NaN), in [0, 1].
    seasonal : tuple of 168 tuples of int, each of length b + 1
        Events by hour of the week (UTC, from Monday 00:00): nulls, then each bin. Empty if event times were not given;
        then every hour is expected to look alike.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    mean: float | None
    std: float | None
    null_share: float
    seasonal: tuple[tuple[int, ...], ...] = ()

    @staticmethod
    def of_json(raw: Mapping[str, Any]) -> FeatureProfile:
        """Return the profile whose JSON object this is; TypeError, KeyError if it is none."""
        return FeatureProfile(
            **{
                **raw,
                "edges": tuple(map(float, raw["edges"])),
                "shares": tuple(map(float, raw["shares"])),
                "seasonal": tuple(tuple(map(int, hour)) for hour in raw.get("seasonal", ())),
            }
        )

    def bin_shares(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of each of this profile's bins among values that are not NaN, float64 of shape (b,)."""
        present = values[~np.isnan(values)]
        counts = np.bincount(np.searchsorted(self.edges, present, side="left"), minlength=len(self.edges) + 1)
        return counts / max(len(present), 1)


def profile(values: NDArray[np.float64], bins: int = BINS, times_ms: NDArray[np.int64] | None = None) -> FeatureProfile:
    """Return the profile of a feature.

    Edges are observed values, so that a feature of few distinct values (a flag, a count) gets a bin for each.

    Parameters
    ----------
    values : float64 ndarray of shape (n,)
        NaN is null; infinities are allowed.
    bins : int
        At most so many bins, >= 1.
    times_ms : int64 ndarray of shape (n,), optional
        Event times, milliseconds since the epoch; with them the profile knows the rhythm of day and week.

    Examples
    --------
    >>> profile(np.array([0.0, 0.0, 0.0, 1.0])).shares
    (0.75, 0.25)
    """
    present = values[~np.isnan(values)]
    null_share = 1 - len(present) / len(values) if len(values) else 0.0
    if not len(present):
        return FeatureProfile((), (0.0,), None, None, null_share, _seasonal((), values, times_ms))
    cuts = np.unique(np.quantile(present, np.arange(1, bins) / bins, method="inverted_cdf"))
    edges = tuple(cuts[cuts < present.max()].tolist())
    blank = FeatureProfile(edges, (), None, None, null_share)
    finite = present[np.isfinite(present)]
    with np.errstate(over="ignore", invalid="ignore"):
        moments = (float(finite.mean()), float(finite.std())) if len(finite) else (math.nan, math.nan)
    mean, std = (each if math.isfinite(each) else None for each in moments)
    shares = tuple(blank.bin_shares(values).tolist())
    return FeatureProfile(edges, shares, mean, std, null_share, _seasonal(edges, values, times_ms))


def _seasonal(
    edges: tuple[float, ...], values: NDArray[np.float64], times_ms: NDArray[np.int64] | None
) -> tuple[tuple[int, ...], ...]:
    if times_ms is None:
        return ()
    width = len(edges) + 2
    bins = np.where(np.isnan(values), 0, 1 + np.searchsorted(edges, values, side="left"))
    counts = np.bincount(hour_of_week(times_ms) * width + bins, minlength=HOURS * width)
    return tuple(map(tuple, counts.reshape(HOURS, width).tolist()))
