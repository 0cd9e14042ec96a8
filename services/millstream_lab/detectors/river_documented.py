"""What River's own documentation says its detectors find in its example streams (river.drift, version 0.26.1)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from millstream.core.drift import streaming
from millstream.core.drift.detector import Detector, Floats

from millstream_lab.detectors.river_detectors import Adwin, Kswin


class Documented(NamedTuple):
    """One example.

    Parameters
    ----------
    name : str
    make : callable
        The detector as in the example.
    stream : callable
        What it is fed, float64 of shape (2000,); it changes at 1,000.
    drifts : tuple of int
    first_warning : int or None
        None where a detector does not warn.
    """

    name: str
    make: Callable[[], Detector]
    stream: Callable[[], Floats]
    drifts: tuple[int, ...]
    first_warning: int | None


def two_levels() -> Floats:
    """Return integers of 0 and 1, then of 4 to 7."""
    rng = random.Random(12345)
    return np.array(rng.choices([0, 1], k=1000) + rng.choices(range(4, 8), k=1000), dtype=np.float64)


def two_error_rates() -> Floats:
    """Return errors (1) half of the time, then more often."""
    rng = random.Random(42)
    return np.array(rng.choices([0, 1], k=1000) + rng.choices([0, 1], k=1000, weights=[0.3, 0.7]), dtype=np.float64)


DOCUMENTED: Final = (
    Documented("ADWIN", Adwin, two_levels, (1023,), None),
    Documented("Page-Hinkley", streaming.page_hinkley, two_levels, (1006,), None),
    Documented("KSWIN", lambda: Kswin(alpha=0.0001, seed=42), two_levels, (1016,), None),
    Documented("DDM", streaming.ddm, two_error_rates, (1334,), 1084),
    Documented("EDDM", lambda: streaming.eddm(alpha=0.8, beta=0.75), two_error_rates, (1278,), 1059),
    Documented("HDDM-A", streaming.hddm_a, two_error_rates, (1206,), 451),
    Documented("HDDM-W", streaming.hddm_w, two_error_rates, (1077,), 451),
)
