"""The fold from examples to alerts about what scores mean, and about labels that come late.

A change of meaning goes on until somebody acts, so the sums of evidence are not begun anew at an alarm, as a CUSUM's
usually is: they stay above the threshold, capped at twice of it, while it lasts, and fall when it is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from services.core.batch import Mask, Rows
from services.core.drift.alert import Alert, Evidence, Signal
from services.core.drift.concept import MONITORS
from services.core.drift.declared import Limits
from services.core.drift.detector import Floats
from services.core.drift.incidents import Evaluation, Policy, State, Superseded, initial, update
from services.core.drift.model_reference import ModelReference
from services.core.drift.seasons import HOUR_MS
from services.core.drift.signals import described
from services.core.jit import kernel

_CAP: Final = 2.0
_DELAY_SLOTS: Final = 24
_DELAY_EDGES_MS: Final = np.array([round(HOUR_MS * 2 ** (i / 2)) for i in range(24)])


@kernel
def advance(sums: Floats, since: Rows, evidence: Floats, threshold: float, cap: float, first: int) -> tuple[int, bool]:
    """Take rows from ``first`` on until a sum rises above the threshold.

    Returns how many rows were taken in all, and whether that is because one did.

    Parameters
    ----------
    sums : float64 ndarray of shape (m,)
        Changed in place, kept in [0, cap].
    since : int64 ndarray of shape (m,)
        Row after the last at which the sum was 0; -1 if that was before these rows.
    evidence : float64 ndarray of shape (n, m)
    """
    for row in range(first, len(evidence)):
        crossed = False
        for i in range(len(sums)):
            before = sums[i]
            sums[i] = min(max(before + evidence[row, i], 0.0), cap)
            if sums[i] == 0.0:
                since[i] = row + 1
            crossed = crossed or (before <= threshold and sums[i] > threshold)
        if crossed:
            return row + 1, True
    return len(evidence), False


@dataclass(frozen=True, slots=True)
class Labelled:
    """Examples in order.

    Parameters
    ----------
    offsets, times_ms, known_ms : int64 ndarray of shape (n,)
        Of the example; when the event happened; when its label became known.
    versions : int64 ndarray of shape (n,)
        Of the champion that was there; 0 for none.
    scores : float64 ndarray of shape (n,)
        The champion's.
    labels : bool ndarray of shape (n,)
    """

    offsets: Rows
    times_ms: Rows
    known_ms: Rows
    versions: Rows
    scores: Floats
    labels: Mask

    def take(self, rows: Rows) -> Labelled:
        """Return these rows."""
        return Labelled(
            self.offsets[rows],
            self.times_ms[rows],
            self.known_ms[rows],
            self.versions[rows],
            self.scores[rows],
            self.labels[rows],
        )


class ConceptWatch:
    """Everything that is known of examples; the same however they are cut into batches.

    Parameters
    ----------
    model : str
    reference_of : callable
        From a version to its reference; None if it has none.
    limits : Limits
    topic : str
        Where examples are, for evidence.
    policy : Policy
    """

    def __init__(
        self,
        model: str,
        reference_of: Callable[[int], ModelReference | None],
        limits: Limits,
        topic: str,
        policy: Policy,
    ) -> None:
        self._model = model
        self._reference_of = reference_of
        self._limits = limits
        self._topic = topic
        self._policy = policy
        self.version: int | None = None
        self._newest_ms = -1
        self._slot = -1
        self._sums = np.zeros(len(MONITORS))
        self._since: list[tuple[int, int]] = [(-1, 0)] * len(MONITORS)
        self._last_offset = -1
        self._delays: dict[int, list[int]] = {}
        self._state = initial()

    def update(self, labelled: Labelled) -> list[Alert]:
        """Take examples; return the alerts they give rise to.

        Those scored by another version than the newest events were are passed over: what they would say is of a model
        that is gone.
        """
        alerts: list[Alert] = []
        slots = np.maximum.accumulate(np.concatenate([[self._slot], labelled.known_ms // HOUR_MS]))
        newest = np.maximum.accumulate(np.concatenate([[self._newest_ms], labelled.times_ms]))
        switches = (newest[1:] > newest[:-1]) & (labelled.versions > 0)
        current = self.version or 0
        turned = np.zeros(len(labelled.offsets), dtype=np.bool_)
        for row in np.flatnonzero(switches).tolist():
            turned[row] = labelled.versions[row] != current
            current = int(labelled.versions[row])
        breaks = np.flatnonzero((slots[1:] > slots[:-1]) | turned).tolist()
        start = 0
        for row in [*breaks, len(labelled.offsets)]:
            alerts += self._take(labelled.take(np.arange(start, row)))
            if row < len(labelled.offsets):
                if slots[row + 1] > self._slot:
                    if self._slot >= 0:
                        alerts += self._say()
                    self._slot = int(slots[row + 1])
                if turned[row]:
                    alerts += self._turn(int(labelled.versions[row]))
            start = row
        self._newest_ms = int(newest[-1])
        return alerts

    def _turn(self, version: int) -> list[Alert]:
        superseded = [Superseded((self._slot + 1) * HOUR_MS, self._model, version)]
        self._state, alerts = update(self._state, superseded if self.version is not None else [], self._policy)
        self.version = version
        self._sums = np.zeros(len(MONITORS))
        self._since = [(-1, 0)] * len(MONITORS)
        return alerts

    def _take(self, labelled: Labelled) -> list[Alert]:
        alerts: list[Alert] = []
        if not len(labelled.offsets):
            return alerts
        held = self._delays.setdefault(self._slot, [0] * (len(_DELAY_EDGES_MS) + 1))
        cells = np.searchsorted(_DELAY_EDGES_MS, labelled.known_ms - labelled.times_ms)
        self._delays[self._slot] = (np.bincount(cells, minlength=len(held)) + np.array(held)).tolist()
        reference = None if self.version is None else self._reference_of(self.version)
        mine = labelled.take(np.flatnonzero((labelled.versions == self.version) & ~np.isnan(labelled.scores)))
        if reference is None or reference.calibration is None:
            return alerts
        chances = reference.calibration(mine.scores)
        evidence = np.column_stack([each.evidence(mine.labels, chances) for each in MONITORS])
        done, threshold = 0, reference.concept_threshold
        while done < len(evidence):
            since = np.full(len(MONITORS), -1, dtype=np.int64)
            start = done
            done, crossed = advance(self._sums, since, evidence, threshold, _CAP * threshold, start)
            self._last_offset = int(mine.offsets[done - 1])
            self._note(mine, since, start, done)
            if crossed:  # told at once, without waiting for the hour to end: labels may come once a day
                alerts += self._say()
        return alerts

    def _note(self, mine: Labelled, since: Rows, start: int, done: int) -> None:
        """Remember where each sum began to grow."""
        for i, row in enumerate(since.tolist()):
            if row >= done:
                self._since[i] = (-1, 0)
            elif row >= 0 or self._since[i][0] < 0:
                began = max(row, start)
                self._since[i] = int(mine.offsets[began]), int(mine.times_ms[began])

    def _say(self) -> list[Alert]:
        at_ms = (self._slot + 1) * HOUR_MS
        said = Evaluation(at_ms, (*self._concept_signals(at_ms), *self._delay_signals(at_ms)))
        self._state, alerts = update(self._state, [said], self._policy)
        for slot in [each for each in self._delays if each <= self._slot - _DELAY_SLOTS]:
            del self._delays[slot]
        return alerts

    def _concept_signals(self, at_ms: int) -> Iterator[Signal]:
        reference = None if self.version is None else self._reference_of(self.version)
        if self.version is None or reference is None or reference.calibration is None or self._last_offset < 0:
            return
        for monitor, total, (offset, since_ms) in zip(MONITORS, self._sums.tolist(), self._since, strict=True):
            first = offset if offset >= 0 else self._last_offset
            yield Signal(
                kind="concept",
                model=self._model,
                model_version=self.version,
                feature="",
                segment="",
                monitor=monitor.name,
                statistic=total,
                threshold=reference.concept_threshold,
                evidence=Evidence(since_ms or at_ms, at_ms, self._topic, ((0, first, self._last_offset),)),
                reference=described(reference),
                importance=1.0,
                shift=min(1.0, total / (_CAP * reference.concept_threshold)),
            )

    def _delay_signals(self, at_ms: int) -> Iterator[Signal]:
        limit = self._limits.label_delay_ms
        counts = np.sum([self._delays[slot] for slot in sorted(self._delays)], axis=0) if self._delays else np.zeros(1)
        if limit is None or counts.sum() < 50:
            return
        cell = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
        median_ms = float(_DELAY_EDGES_MS[cell]) if cell < len(_DELAY_EDGES_MS) else float("inf")
        yield Signal(
            kind="operations",
            model="",
            model_version=0,
            feature="label delay",
            segment="",
            monitor="median in ms over 24 h",
            statistic=median_ms,
            threshold=float(limit),
            evidence=Evidence(max(0, at_ms - _DELAY_SLOTS * HOUR_MS), at_ms, self._topic),
            reference="declared limit",
            importance=1.0,
            shift=1.0,
        )

    def to_json(self) -> dict[str, Any]:
        """Return everything it knows as a JSON object."""
        return {
            "version": self.version,
            "newest_ms": self._newest_ms,
            "slot": self._slot,
            "sums": self._sums.tolist(),
            "since": self._since,
            "last_offset": self._last_offset,
            "delays": sorted(self._delays.items()),
            "incidents": self._state.to_json(),
        }

    def load(self, raw: dict[str, Any]) -> None:
        """Go on from what `to_json` returned."""
        self.version, self._newest_ms, self._slot = raw["version"], raw["newest_ms"], raw["slot"]
        self._sums = np.array(raw["sums"], dtype=np.float64)
        self._since = [(offset, since_ms) for offset, since_ms in raw["since"]]
        self._last_offset = raw["last_offset"]
        self._delays = dict(map(tuple, raw["delays"]))
        self._state = State.from_json(raw["incidents"])
