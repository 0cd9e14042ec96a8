"""A model's reference against one stretch of events, column by column: the figures of a drift report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from millstream.core.batch import Floats, Rows
from millstream.core.drift.distance import (
    DISTANCES,
    benjamini_hochberg,
    chi_square_p_value,
    ks_p_value,
)
from millstream.core.drift.seasons import hour_of_week
from millstream.core.drift.slot_counts import Binning, Counts, count_rows


@dataclass(frozen=True, slots=True)
class Comparison:
    """One column, now against then.

    Parameters
    ----------
    column : str
    events : int
    psi, jensen_shannon, ks, chi_square : float
        Distances; ``chi_square`` is per event.
    ks_p_value, chi_square_p_value : float
        After division by the design effect.
    adjusted_p_value : float
        Of the smaller of the two, doubled, among all columns by Benjamini-Hochberg: at most q marks a column as moved,
        and a share q of those so marked at most is wrong.
    observed, expected : int64 and float64 ndarray of shape (b,)
        Events by bin, nulls first; padding beyond the column's own bins is left out.
    """

    column: str
    events: int
    psi: float
    jensen_shannon: float
    ks: float
    chi_square: float
    ks_p_value: float
    chi_square_p_value: float
    adjusted_p_value: float
    observed: Counts
    expected: Floats


def compare(values: Floats, times_ms: Rows, binning: Binning, design_effects: Floats | float = 1.0) -> list[Comparison]:
    """Compare events with what was to be expected at their hours of the week.

    Parameters
    ----------
    values : float64 ndarray of shape (n, c)
        In the order of the binning's columns.
    times_ms : int64 ndarray of shape (n,)
    design_effects : float or float64 ndarray of shape (c,)
        See `millstream.core.drift.distance.design_effect`.
    """
    counts = np.zeros((1, *binning.shares.shape[1:]), dtype=np.int64)
    count_rows(np.ascontiguousarray(values), binning.edges, np.zeros(len(values), dtype=np.int64), counts)
    observed = counts[0]
    by_hour = np.bincount(hour_of_week(times_ms), minlength=len(binning.shares))
    expected = np.tensordot(by_hour.astype(np.float64), binning.shares, axes=1)
    found = {name: each(observed, expected, binning.bins) for name, each in DISTANCES.items()}
    events = observed.sum(axis=-1).astype(np.float64)
    ks_p = ks_p_value(found["ks"], events, design_effects)
    chi_p = chi_square_p_value(found["chi_square"], events, binning.bins, design_effects)
    adjusted = benjamini_hochberg(np.minimum(2 * np.minimum(ks_p, chi_p), 1.0))
    return [
        Comparison(
            column,
            int(events[i]),
            **{name: float(each[i]) for name, each in found.items()},
            ks_p_value=float(ks_p[i]),
            chi_square_p_value=float(chi_p[i]),
            adjusted_p_value=float(adjusted[i]),
            observed=observed[i, : binning.bins[i]],
            expected=expected[i, : binning.bins[i]],
        )
        for i, column in enumerate(binning.columns)
    ]
