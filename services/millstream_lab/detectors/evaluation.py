"""Detectors on published drift streams, each at the same false-alarm rate: how late, how many missed, how many false.

The learner and the detector run in one loop (prequential): predict, update the detector, learn; on drift the learner
restarts. A detector's one setting is chosen by the same loop on streams without drift.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from river.drift import ADWIN, PageHinkley
from river.drift.binary import DDM, EDDM, HDDMA, HDDMW

from millstream.core.batch import Floats
from millstream.core.drift.concept import error_evidence
from millstream_lab.detectors.detector import Cusum, Detector, detect
from millstream_lab.detectors.drift_streams import BLANK, DriftStream, learn_and_predict, two_levels
from millstream_lab.detectors.windowed_psi import WindowedPsi

Feed = Literal["errors", "evidence"]
_CHUNK = 250


@dataclass(frozen=True, slots=True)
class DetectorCandidate:
    """A detector with one setting that makes it more cautious between ``low`` and ``high``.

    Parameters
    ----------
    name : str
    make : callable
        From the setting to a new detector.
    default : float or None
        The setting it comes with; None if it has to be calibrated.
    low, high : float, > 0
    feed : str
        ``errors``, or ``evidence``: log-likelihood ratios of `millstream.core.drift.concept.error_evidence`.
    """

    name: str
    make: Callable[[float], Detector]
    default: float | None
    low: float
    high: float
    feed: Feed = "errors"


_ADWIN = DetectorCandidate("ADWIN", lambda x: ADWIN(delta=1 / x), 500.0, 1.001, 1e30)  # type: ignore[no-untyped-call]

CONTENDERS: tuple[DetectorCandidate, ...] = (
    DetectorCandidate("risk-adjusted CUSUM", lambda h: Cusum(h, 0.0, two_sided=False), None, 1.0, 100.0, "evidence"),
    DetectorCandidate("Page-Hinkley", lambda h: PageHinkley(threshold=h, mode="up"), 50.0, 1.0, 1e4),
    DetectorCandidate("DDM", lambda level: DDM(drift_threshold=level), 3.0, 0.5, 50.0),
    DetectorCandidate("EDDM", lambda x: EDDM(alpha=max(1 / x, 0.95), beta=1 / x), 1 / 0.9, 1.001, 100.0),
    DetectorCandidate("HDDM-A", lambda x: HDDMA(1 / x, min(5 / x, 1.0)), 1e3, 2.0, 1e30),  # type: ignore[no-untyped-call]
    DetectorCandidate("HDDM-W", lambda x: HDDMW(1 / x, min(5 / x, 1.0)), 1e3, 2.0, 1e30),  # type: ignore[no-untyped-call]
    DetectorCandidate("windowed PSI", WindowedPsi, 0.25, 1e-3, 100.0),
    _ADWIN,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One line of the table, over all runs of a stream.

    Parameters
    ----------
    stream, detector : str
    setting : float
    calibrated : bool
        Whether the setting is for the common false-alarm rate; else the detector's own default.
    drifts, missed, false : int
        Changes there were, changes not found in time, and detections of none.
    median_delay : float
        Of those found, in events; NaN if none was.
    """

    stream: str
    detector: str
    setting: float
    calibrated: bool
    drifts: int
    missed: int
    false: int
    median_delay: float


def fed(stream: DriftStream, chances: Floats, rows: slice, feed: Feed) -> Floats:
    """Return what a detector is fed for these rows: errors, 1 for an error; or the evidence for more of them."""
    labels = stream.labels[rows]
    if feed == "evidence":
        return error_evidence(labels, np.clip(chances, 1e-6, 1 - 1e-6), 2.0)
    return np.asarray(labels != (chances >= 0.5), dtype=np.float64)


def detections(stream: DriftStream, contender: DetectorCandidate, setting: float) -> list[int]:
    """Return the rows at which the detector found drift; the learner restarts after each."""
    detector, state, start, found = contender.make(setting), np.zeros(BLANK), 0, []
    while start < len(stream.labels):
        rows = slice(start, min(start + _CHUNK, len(stream.labels)))
        chances = np.empty(rows.stop - start)
        learn_and_predict(state, stream.features[rows], stream.labels[rows], chances)
        start = rows.stop
        for hit in detect(detector, fed(stream, chances, rows, contender.feed)):
            found.append(rows.start + hit)
            state, start = np.zeros(BLANK), rows.start + hit + 1
            break  # the learner's next predictions are other ones
    return found


def judge(found: Sequence[int], drifts: Iterable[int], within: int) -> tuple[list[int], int, int]:
    """Return (delay of each change found, changes missed, detections of none); a second one of a change is of none."""
    delays, missed, used = [], 0, set()
    for drift in drifts:
        hit = next((row for row in found if drift <= row < drift + within), None)
        if hit is None:
            missed += 1
        else:
            delays.append(hit - drift)
            used.add(hit)
    return delays, missed, len(found) - len(used)


def table(
    make_stream: Callable[[int], DriftStream],
    make_calm: Callable[[int], DriftStream],
    contenders: Sequence[DetectorCandidate],
    events_per_alarm: float,
    runs: int,
) -> list[Outcome]:
    """Return each contender as it comes and at the common false-alarm rate.

    Parameters
    ----------
    make_stream, make_calm : callable
        From a seed to a stream with drifts, and to one of the same kind without.
    events_per_alarm : float
        The common rate: one false alarm in so many events.
    runs : int
        Streams with drift; as many without are calibrated on.
    """
    streams = [make_stream(seed) for seed in range(runs)]
    calm = [make_calm(1000 + seed) for seed in range(runs)]
    allowed = sum(len(each.labels) for each in calm) / events_per_alarm
    outcomes = []
    for contender in contenders:

        def alarms(setting: float, contender: DetectorCandidate = contender) -> int:
            return sum(len(detections(each, contender, setting)) for each in calm)

        setting = least_cautious(alarms, contender.low, contender.high, allowed, 18)
        settings = [(setting, True)] if contender.default is None else [(contender.default, False), (setting, True)]
        outcomes += [_outcome(streams, contender, value, calibrated) for value, calibrated in settings]
    return outcomes


def _outcome(streams: Sequence[DriftStream], contender: DetectorCandidate, setting: float, calibrated: bool) -> Outcome:
    delays: list[int] = []
    missed = false = 0
    for stream in streams:
        some, out, wrong = judge(detections(stream, contender, setting), stream.drifts, stream.within)
        delays, missed, false = delays + some, missed + out, false + wrong
    drifts = sum(len(each.drifts) for each in streams)
    median = float(np.median(delays)) if delays else float("nan")
    return Outcome(streams[0].name, contender.name, setting, calibrated, drifts, missed, false, median)


VALUE_CONTENDERS: tuple[DetectorCandidate, ...] = (
    DetectorCandidate("CUSUM of standardised values", Cusum, None, 0.5, 1e3),
    DetectorCandidate("Page-Hinkley", lambda h: PageHinkley(threshold=h), 50.0, 1.0, 1e4),
    DetectorCandidate("windowed PSI", WindowedPsi, 0.25, 1e-3, 100.0),
    _ADWIN,
)
"""For streams of values rather than of errors."""


def levels_table(contenders: Sequence[DetectorCandidate], events_per_alarm: float, runs: int) -> list[Outcome]:
    """Return the same table for the stream of two levels, whose values are fed as they are, standardised."""
    streams = [_standardised(two_levels(seed)) for seed in range(runs)]
    calm = [_standardised(two_levels(1000 + seed, 20_000, 20_000)) for seed in range(runs)]
    outcomes = []
    for contender in contenders:

        def alarms(setting: float, contender: DetectorCandidate = contender) -> int:
            return sum(len(list(detect(contender.make(setting), each))) for each in calm)

        allowed = sum(map(len, calm)) / events_per_alarm
        setting = least_cautious(alarms, contender.low, contender.high, allowed, 18)
        settings = [(setting, True)] if contender.default is None else [(contender.default, False), (setting, True)]
        for value, calibrated in settings:
            judged = [judge(list(detect(contender.make(value), each)), (1000,), 1000) for each in streams]
            delays = [delay for some, _, _ in judged for delay in some]
            missed, false = sum(out for _, out, _ in judged), sum(wrong for _, _, wrong in judged)
            median = float(np.median(delays)) if delays else float("nan")
            outcomes.append(Outcome("two levels", contender.name, value, calibrated, runs, missed, false, median))
    return outcomes


def _standardised(values: Floats) -> Floats:
    return np.asarray((values - 0.5) / 0.5)


def least_cautious(drifts: Callable[[float], int], low: float, high: float, allowed: float, steps: int = 30) -> float:
    """Return the least cautious setting of a streaming detector under which it drifts ``allowed`` times at most.

    Parameters
    ----------
    drifts : callable
        From a setting to how often a detector so set drifts on history without drift; between ``low`` and ``high`` that
        must become less, by and large.
    low, high : float
        Both > 0; the search is by ratio.
    allowed : float
        False alarms in that history.
    steps : int
        How often to halve.
    """
    for _ in range(steps):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if drifts(middle) > allowed else (low, middle)
    return high
