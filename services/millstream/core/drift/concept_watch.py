"""The fold from examples to alerts about concept drift and late labels.

The champion's scores are compared with its reference, over all events and in each segment; the online model's, which
has none, with the labels so far of such scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from millstream.core.batch import Floats, Mask, Rows
from millstream.core.drift.alert import ONLINE, ONLINE_VERSION, Alert, Evidence, Signal
from millstream.core.drift.concept import MONITORS, ONLINE_MONITORS, ConceptMonitor
from millstream.core.drift.declared import Limits
from millstream.core.drift.evidence_sums import CAP, EvidenceSums, RunningCalibration
from millstream.core.drift.incidents import Evaluation, ModelReplaced, Policy, State, initial, update
from millstream.core.drift.model_reference import ModelReference
from millstream.core.drift.seasons import HOUR_MS
from millstream.core.drift.signals import described

POLICY: Final = Policy(close_ratio=0.5)
"""A sum of evidence wanders: one that has just fallen below its threshold is above it again soon, about one change."""

_OURS: Final = len(MONITORS)
_DELAY_SLOTS: Final = 24
_DELAY_EDGES_MS: Final = np.array([round(HOUR_MS * 2 ** (i / 2)) for i in range(24)])


@dataclass(frozen=True, slots=True)
class LabelledScores:
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
    online : float64 ndarray of shape (n,)
        The online model's scores; NaN where it had none.
    column : callable
        From a feature's name to its values, float64 of shape (n,).
    """

    offsets: Rows
    times_ms: Rows
    known_ms: Rows
    versions: Rows
    scores: Floats
    labels: Mask
    online: Floats
    column: Callable[[str], Floats]

    def take(self, rows: Rows) -> LabelledScores:
        """Return these rows."""
        return LabelledScores(
            self.offsets[rows],
            self.times_ms[rows],
            self.known_ms[rows],
            self.versions[rows],
            self.scores[rows],
            self.labels[rows],
            self.online[rows],
            lambda name: self.column(name)[rows],
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
        self._sums = EvidenceSums(_OURS)  # of the online model, then of the champion: everywhere, in each segment
        self._online = RunningCalibration()
        self._delays: dict[int, list[int]] = {}
        self._state = initial()

    def update(self, labelled: LabelledScores) -> list[Alert]:
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
                        alerts += self._alerts_now()
                    self._slot = int(slots[row + 1])
                if turned[row]:
                    alerts += self._turn(int(labelled.versions[row]))
            start = row
        self._newest_ms = int(newest[-1])
        return alerts

    def _turn(self, version: int) -> list[Alert]:
        superseded = [ModelReplaced((self._slot + 1) * HOUR_MS, self._model, version)]
        self._state, alerts = update(self._state, superseded if self.version is not None else [], self._policy)
        self.version = version
        reference = self._reference
        self._sums.restart(_OURS, 0 if reference is None else _OURS * (1 + len(reference.segments)))
        return alerts

    def _take(self, labelled: LabelledScores) -> list[Alert]:
        alerts: list[Alert] = []
        if not len(labelled.offsets):
            return alerts
        held = self._delays.setdefault(self._slot, [0] * (len(_DELAY_EDGES_MS) + 1))
        cells = np.searchsorted(_DELAY_EDGES_MS, labelled.known_ms - labelled.times_ms)
        self._delays[self._slot] = (np.bincount(cells, minlength=len(held)) + np.array(held)).tolist()
        reference = self._reference
        if reference is None or reference.calibration is None:
            return alerts
        evidence = self._evidence(labelled, reference)
        with_evidence = np.flatnonzero(evidence.any(axis=1))
        evidence, rows, done = evidence[with_evidence], labelled.take(with_evidence), 0
        while done < len(evidence):
            done, crossed = self._sums.take(evidence, rows.offsets, rows.times_ms, reference.concept_threshold, done)
            if crossed:  # reported at once, without waiting for the hour to end: labels may come once a day
                alerts += self._alerts_now()
        return alerts

    def _evidence(self, labelled: LabelledScores, reference: ModelReference) -> Floats:
        """Return what each example adds to each sum, float64 of shape (n, m)."""
        assert reference.calibration is not None
        has_online = ~np.isnan(labelled.online)
        chances = np.full(len(labelled.offsets), np.nan)
        chances[has_online] = self._online(labelled.online[has_online], labelled.labels[has_online])
        mine = (labelled.versions == self.version) & ~np.isnan(labelled.scores)
        champion = np.where(mine, reference.calibration(np.nan_to_num(labelled.scores)), np.nan)
        online = _of_monitors(ONLINE_MONITORS, labelled.labels, chances)
        whole = _of_monitors(MONITORS, labelled.labels, champion)
        members = reference.members(labelled.column(reference.segment_by)) if reference.segments else []
        return np.hstack([online, whole, *(np.where(each[:, None], whole, 0.0) for each in members)])

    @property
    def _reference(self) -> ModelReference | None:
        return None if self.version is None else self._reference_of(self.version)

    def _alerts_now(self) -> list[Alert]:
        at_ms = (self._slot + 1) * HOUR_MS
        evaluation = Evaluation(at_ms, (*self._concept_signals(at_ms), *self._delay_signals(at_ms)))
        self._state, alerts = update(self._state, [evaluation], self._policy)
        for slot in [each for each in self._delays if each <= self._slot - _DELAY_SLOTS]:
            del self._delays[slot]
        return alerts

    def _concept_signals(self, at_ms: int) -> Iterator[Signal]:
        reference = self._reference
        if self.version is None or reference is None or reference.calibration is None:
            return
        if self._sums.last_offset < 0:
            return
        threshold, last, champion = reference.concept_threshold, self._sums.last_offset, described(reference)
        about = [(ONLINE, ONLINE_VERSION, "", "what labels said of such scores before")]
        about += [(self._model, self.version, segment, champion) for segment in ("", *reference.segment_names())]
        each_one = [(*subject, monitor) for subject in about for monitor in MONITORS]
        for (model, version, segment, reference_text, monitor), total, (offset, since_ms) in zip(
            each_one, self._sums.values.tolist(), self._sums.since, strict=True
        ):
            yield Signal(
                kind="concept",
                model=model,
                model_version=version,
                feature="",
                segment=segment,
                monitor=monitor.name,
                statistic=total,
                threshold=threshold,
                evidence=Evidence(
                    since_ms or self._sums.newest_ms,
                    self._sums.newest_ms + 1,
                    self._topic,
                    ((0, offset if offset >= 0 else last, last),),
                ),
                reference=reference_text,
                importance=1.0,
                shift=min(1.0, total / (CAP * threshold)),
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
            "sums": self._sums.to_json(),
            "online": self._online.to_json(),
            "delays": sorted(self._delays.items()),
            "incidents": self._state.to_json(),
        }

    def load(self, raw: dict[str, Any]) -> None:
        """Go on from what `to_json` returned."""
        self.version, self._newest_ms, self._slot = raw["version"], raw["newest_ms"], raw["slot"]
        self._sums = EvidenceSums.of_json(raw["sums"])
        self._online = RunningCalibration.of_json(raw["online"])
        self._delays = dict(map(tuple, raw["delays"]))
        self._state = State.from_json(raw["incidents"])


def _of_monitors(monitors: Sequence[ConceptMonitor], labels: Mask, chances: Floats) -> Floats:
    """Return what each monitor is fed, float64 of shape (n, m); 0 where there is no chance to go by."""
    known = ~np.isnan(chances)
    found = np.column_stack([each.evidence(labels, np.where(known, chances, 0.5)) for each in monitors])
    return np.where(known[:, None], found, 0.0)
