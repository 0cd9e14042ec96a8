"""Drift of the online model's scores against those of the four weeks before.

It has no reference from training, and goes on learning: its reference is its own past, recomputed every week with
thresholds calibrated on it. A model that learns is meant to move, so what is less than a significant shift by the rule
of thumb of credit scoring [1]_ is no cause for alarm, however sure one is of it; a learner that breaks, or falls
silent, is. Weeks with alarms make no reference: the reference stays while there is one in the last four weeks. But for
eight weeks at most, so that scores that stay where they went become the past, and their incident closes.

References
----------
.. [1] Siddiqi (2006), "Credit Risk Scorecards", Wiley: a population stability index above 0.25.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np

from millstream.core.batch import Floats, Rows
from millstream.core.drift.alert import ONLINE, ONLINE_VERSION, Signal
from millstream.core.drift.budget import DAY_MS, Budget
from millstream.core.drift.model_reference import SCORE
from millstream.core.drift.plan import Plan
from millstream.core.drift.reference import Reference, calibrate
from millstream.core.drift.seasons import HOURS, seasonal_shares
from millstream.core.drift.signals import compared, described_span, evidence_of
from millstream.core.drift.slot_counts import Binning, Block, Counts, count_rows
from millstream.core.drift.windowed import Windows

_DAYS: Final = 28
_RENEWED_DAYS: Final = 7
_OLDEST_DAYS: Final = 56
_SIGNIFICANT: Final = 0.25
_EDGES: Final = 1 / (1 + np.exp(-(np.arange(48) / 2.0 - 12.0)))[None, :]
"""Of the cells in which scores are counted: halves on the logit, from -12 to 11.5."""


def online_block(scores: Floats, offsets: Rows) -> Block:
    """Count the online model's scores of one slot, n >= 1; NaN is no opinion."""
    counts = np.zeros((1, 1, _EDGES.shape[1] + 2), dtype=np.int64)
    count_rows(np.ascontiguousarray(scores[:, None]), _EDGES, np.zeros(len(scores), dtype=np.int64), counts)
    nothing = np.zeros(0, dtype=np.int64)
    return Block(counts[0], np.zeros(1, dtype=np.int64), nothing, int(offsets.min()), int(offsets.max()))


class OnlineScores:
    """Counts of the online model's scores by slot, and what they say beside those of before.

    Parameters
    ----------
    windows_ms : tuple of int
        Lengths of windows, where there are events enough for them.
    budget : Budget
        False alarms.
    topic : str
        Where scored events are, for evidence.
    """

    def __init__(self, windows_ms: tuple[int, ...], budget: Budget, topic: str) -> None:
        self._plan = plan = Plan(windows_ms=windows_ms, distances=("psi",), floors=(_SIGNIFICANT,))
        self._budget = budget
        self._topic = topic
        width = _EDGES.shape[1] + 2
        blank = Binning((SCORE,), _EDGES, np.array([width]), np.zeros((HOURS, 1, width)))
        self._per_day = DAY_MS // plan.slot_ms
        self._windows = Windows(blank, plan, 0, _DAYS * self._per_day)
        self._made = -1  # the slot at whose end the reference was
        self._last_alarm = -1  # the newest slot at whose end scores were above a threshold
        self._thresholds: Floats = np.zeros(0)
        self._past: Counts = np.zeros((HOURS, 1, width), dtype=np.int64)

    def check(self, block: Block) -> None:
        """Raise ValueError if a block is none of these scores."""
        self._windows.check(block)

    def add(self, partition: int, slot: int, block: Block) -> None:
        """Count a block."""
        self._windows.add(partition, slot, block)

    def judge(self, slot: int) -> list[Signal]:
        """Return the signals at the end of a slot; slots in ascending order."""
        if (slot + 1) % self._per_day == 0 and self._due(slot):
            self._renew(slot)
        signals = list(self._signals(slot)) if len(self._thresholds) else []
        if any(each.ratio > 1 for each in signals):
            self._last_alarm = slot
        return signals

    def _due(self, slot: int) -> bool:
        age, calm = (slot - self._made) // self._per_day, (slot - self._last_alarm) // self._per_day
        if self._made < 0:
            return 0 <= self._windows.oldest <= slot + 1 - _DAYS * self._per_day
        return age >= _RENEWED_DAYS and (self._last_alarm < 0 or calm >= _DAYS or age >= _OLDEST_DAYS)

    def _renew(self, slot: int) -> None:
        counts = self._windows.counts(slot, _DAYS * self._per_day)
        history = Reference(counts, slot + 1 - len(counts), self._plan)
        past = np.zeros(self._past.shape, dtype=np.int64)
        np.add.at(past, history.hours(), counts)
        plan = self._plan.within(int(counts.sum()), _DAYS)
        thresholds: Floats = np.zeros(0)
        if plan is not None:
            history = replace(history, plan=plan)
            thresholds = calibrate(history, self._windows.binning, self._budget).scaled
        self._against(slot, past, thresholds, plan or self._plan)

    def _against(self, made: int, past: Counts, thresholds: Floats, plan: Plan) -> None:
        self._made, self._past, self._thresholds = made, past, thresholds
        self._windows.plan = plan
        self._windows.binning = replace(self._windows.binning, shares=seasonal_shares(past))

    def _signals(self, slot: int) -> Iterator[Signal]:
        windows = self._windows
        reading, to_ms = windows.read(slot), (self._made + 1) * self._plan.slot_ms
        reference = f"its own scores before: {described_span(int(self._past.sum()), to_ms - _DAYS * DAY_MS, to_ms)}"
        for check in compared(reading, windows.plan, (SCORE,), self._thresholds):
            yield Signal(
                kind="score",
                model=ONLINE,
                model_version=ONLINE_VERSION,
                feature=SCORE,
                segment="",
                monitor=check.monitor,
                statistic=check.statistic,
                threshold=check.threshold,
                evidence=evidence_of(reading, check.window, self._topic),
                reference=reference,
                importance=1.0,
                shift=check.shift,
            )

    def to_json(self) -> dict[str, Any]:
        """Return everything it knows as a JSON object."""
        return {
            "windows": self._windows.to_json(),
            "made": self._made,
            "told": self._last_alarm,
            "thresholds": self._thresholds.tolist(),
            "windows_ms": self._windows.plan.windows_ms,
            "past": base64.b64encode(zlib.compress(self._past.astype("<i8").tobytes(), 1)).decode(),
        }

    def load(self, raw: dict[str, Any]) -> None:
        """Go on from what `to_json` returned; ValueError if that was of other windows."""
        self._windows.load(raw["windows"])
        past = np.frombuffer(zlib.decompress(base64.b64decode(raw["past"])), dtype="<i8").reshape(self._past.shape)
        plan = replace(self._plan, windows_ms=tuple(raw["windows_ms"]))
        self._last_alarm = raw["told"]
        self._against(raw["made"], past.astype(np.int64), np.array(raw["thresholds"]), plan)
