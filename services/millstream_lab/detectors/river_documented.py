"""The detections that River's documentation states for its example streams (river.drift, version 0.26.1)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from river.drift import ADWIN, KSWIN, PageHinkley
from river.drift.binary import DDM, EDDM, HDDMA, HDDMW

from millstream.core.batch import Floats
from millstream_lab.detectors.detector import Detector


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
    Documented("ADWIN", ADWIN, two_levels, (1023,), None),
    Documented("Page-Hinkley", PageHinkley, two_levels, (1006,), None),
    Documented("KSWIN", lambda: KSWIN(alpha=0.0001, seed=42), two_levels, (1016,), None),
    Documented("DDM", DDM, two_error_rates, (1334,), 1084),
    Documented("EDDM", lambda: EDDM(alpha=0.8, beta=0.75), two_error_rates, (1278,), 1059),
    Documented("HDDM-A", HDDMA, two_error_rates, (1206,), 451),
    Documented("HDDM-W", HDDMW, two_error_rates, (1077,), 451),
)
