"""The arithmetic of the streaming detectors, operation for operation as River does it, compiled.

State is a vector: drift, warning, statistic, threshold, then what the detector itself remembers.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from millstream.core.batch import Rows
from millstream.core.drift.detector import Floats
from millstream.core.jit import fused, kernel

CUSUM: Final = 0
PAGE_HINKLEY: Final = 1
DDM: Final = 2
EDDM: Final = 3
HDDM_A: Final = 4
HDDM_W: Final = 5

DRIFT: Final = 0
WARNING: Final = 1
STATISTIC: Final = 2
THRESHOLD: Final = 3
OWN: Final = 4


@fused
def _judge(s: Floats, statistic: float, threshold: float, warning: bool) -> None:
    s[STATISTIC] = statistic
    s[THRESHOLD] = threshold
    s[WARNING] = 1.0 if warning else 0.0


@fused
def _cusum(p: Floats, s: Floats, x: float) -> None:
    s[4] = max(0.0, s[4] + x - p[0])
    s[5] = max(0.0, s[5] - x - p[0])
    statistic = s[4]
    if p[3] == 0.0 and s[5] > statistic:
        statistic = s[5]
    drift = statistic > p[1]
    s[DRIFT] = 1.0 if drift else 0.0
    _judge(s, statistic, p[1], not drift and statistic > p[2] * p[1])


@fused
def _page_hinkley(p: Floats, s: Floats, x: float) -> None:
    s[4] += 1.0
    s[5] += (1.0 / s[4]) * (x - s[5])
    deviation = x - s[5]
    s[6] = p[3] * s[6] + deviation - p[1]
    s[7] = p[3] * s[7] + deviation + p[1]
    s[8] = min(s[8], s[6])
    s[9] = max(s[9], s[7])
    if s[4] >= p[0]:
        up = s[6] - s[8]
        down = s[9] - s[7]
        statistic = up
        if p[4] == -1.0 or (p[4] == 0.0 and down > up):
            statistic = down
        s[DRIFT] = 1.0 if statistic > p[2] else 0.0
        _judge(s, statistic, p[2], False)


@fused
def _ddm(p: Floats, s: Floats, x: float) -> None:
    s[4] += 1.0
    s[5] += (1.0 / s[4]) * (x - s[5])
    spread = math.sqrt(s[5] * (1.0 - s[5]) / s[4])
    if s[4] > p[0]:
        level = s[5] + spread
        if level <= s[8]:
            s[6] = s[5]
            s[7] = spread
            s[8] = s[6] + s[7]
        limit = s[6] + p[2] * s[7]
        drift = level > limit
        if drift:
            s[DRIFT] = 1.0
        _judge(s, level, limit, not drift and level > s[6] + p[1] * s[7])


@fused
def _eddm(p: Floats, s: Floats, x: float) -> None:
    s[4] += 1.0
    if x != 1.0:
        return
    s[6] += 1.0
    distance = s[4] - s[5]
    s[5] = s[4]
    s[7] += 1.0
    mean = s[8]
    s[8] += (1.0 / s[7]) * (distance - s[8])
    s[9] += (distance - mean) * (distance - s[8])
    if s[4] <= p[0]:
        return
    variance = s[9] / (s[7] - 1.0) if s[7] > 1.0 else 0.0
    reach = s[8] + 2.0 * math.pow(variance, 0.5)
    if reach > s[10]:
        s[10] = reach
    elif s[6] > p[0]:
        level = reach / s[10]
        drift = level < p[2]
        if drift:
            s[DRIFT] = 1.0
        # River leaves the warning of an earlier value standing when drift follows it.
        _judge(s, 1.0 - level, 1.0 - p[2], s[WARNING] == 1.0 if drift else level < p[1])


@fused
def _mean_differs(n: float, mean: float, n_cut: float, mean_cut: float, log_term: float) -> bool:
    if n_cut == n:
        return False
    m = (n - n_cut) / n_cut * (1.0 / n)
    return mean - mean_cut >= math.sqrt(m / 2.0 * log_term)


@fused
def _hddm_a(p: Floats, s: Floats, x: float) -> None:
    s[4] += 1.0
    s[5] += (1.0 / s[4]) * (x - s[5])
    n, mean = s[4], s[5]
    if s[6] == 0.0:
        s[6], s[7] = n, mean
    if s[8] == 0.0:
        s[8], s[9] = n, mean
    eps = math.sqrt(1.0 / (2.0 * n) * p[0])
    if s[7] + math.sqrt(1.0 / (2.0 * s[6]) * p[0]) >= mean + eps:
        s[6], s[7] = n, mean
    if s[9] - math.sqrt(1.0 / (2.0 * s[8]) * p[0]) <= mean - eps:
        s[8], s[9] = n, mean
    drift = _mean_differs(n, mean, s[6], s[7], p[1])
    warning = not drift and _mean_differs(n, mean, s[6], s[7], p[2])
    statistic, n_cut = mean - s[7], s[6]
    if p[3] == 1.0:
        down = _mean_differs(n, -mean, s[8], -s[9], p[1])
        warning = warning or (not down and _mean_differs(n, -mean, s[8], -s[9], p[2]))
        if down and not drift:
            statistic, n_cut = s[9] - mean, s[8]
        drift = drift or down
    s[DRIFT] = 1.0 if drift else 0.0
    gap = (n - n_cut) / n_cut * (1.0 / n)
    _judge(s, statistic, math.sqrt(gap / 2.0 * p[1]), warning)


@fused
def _weigh(p: Floats, s: Floats, at: int, x: float) -> None:
    """Update one exponentially weighted sample: mean, whether it has one, bound."""
    s[at] = p[2] * x + (1.0 - p[2]) * s[at] if s[at + 1] == 1.0 else x
    s[at + 1] = 1.0
    s[at + 2] = p[3] + p[4] * s[at + 2]


@fused
def _cut(s: Floats, one: int, two: int) -> None:
    s[one : one + 3] = s[4:7]
    s[two], s[two + 1], s[two + 2] = 0.0, 0.0, 1.0


@fused
def _rise(s: Floats, one: int, two: int, log_term: float) -> bool:
    if s[one + 1] == 0.0 or s[two + 1] == 0.0:
        return False
    rise: float = s[two] - s[one]
    return rise > math.sqrt((s[one + 2] + s[two + 2]) * log_term / 2.0)


@fused
def _hddm_w(p: Floats, s: Floats, x: float) -> None:
    _weigh(p, s, 4, x)
    eps = math.sqrt(s[6] * p[0] / 2.0)
    if s[4] + eps < s[19]:
        s[19] = s[4] + eps
        _cut(s, 7, 10)
    else:
        _weigh(p, s, 10, x)
    drift = _rise(s, 7, 10, p[0])
    warning = not drift and _rise(s, 7, 10, p[1])
    if s[4] - eps > s[20]:
        s[20] = s[4] - eps
        _cut(s, 13, 16)
    else:
        _weigh(p, s, 16, x)
    low, high = 7, 10
    if p[5] == 1.0:
        down = _rise(s, 16, 13, p[0])
        warning = warning or (not down and _rise(s, 16, 13, p[1]))
        if down and not drift:
            low, high = 16, 13
        drift = drift or down
    s[DRIFT] = 1.0 if drift else 0.0
    if s[low + 1] == 1.0 and s[high + 1] == 1.0:
        _judge(s, s[high] - s[low], math.sqrt((s[low + 2] + s[high + 2]) * p[0] / 2.0), warning)
    else:
        _judge(s, math.nan, math.nan, warning)


@kernel
def run(
    kind: int,
    p: Floats,
    initial: Floats,
    s: Floats,
    column: Floats,
    rows: Rows,
    statistics: Floats,
    thresholds: Floats,
    warnings: Rows,
) -> tuple[int, int]:
    """Feed ``column`` to the detector in ``s``; fill the rows of drift and of warning, return how many of each."""
    found = 0
    warned = 0
    for i in range(len(column)):
        x = column[i]
        if np.isnan(x):
            continue
        if s[DRIFT] == 1.0:
            s[:] = initial
        if kind == CUSUM:
            _cusum(p, s, x)
        elif kind == PAGE_HINKLEY:
            _page_hinkley(p, s, x)
        elif kind == DDM:
            _ddm(p, s, x)
        elif kind == EDDM:
            _eddm(p, s, x)
        elif kind == HDDM_A:
            _hddm_a(p, s, x)
        else:
            _hddm_w(p, s, x)
        if s[DRIFT] == 1.0:
            rows[found] = i
            statistics[found] = s[STATISTIC]
            thresholds[found] = s[THRESHOLD]
            found += 1
        if s[WARNING] == 1.0:
            warnings[warned] = i
            warned += 1
    return found, warned
