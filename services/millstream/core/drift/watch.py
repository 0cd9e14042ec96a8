"""The fold from partitions' summaries to alerts about distributions, quality and traffic.

Summaries of several partitions come in one order, in which slots overlap. A slot is judged once every partition has
closed it, so alerts do not depend on which partition was read faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from millstream.core.drift.alert import ONLINE_VERSION, Alert
from millstream.core.drift.declared import ONLINE_SHARE, Monitors
from millstream.core.drift.incidents import Evaluation, ModelReplaced, Policy, State, initial, update
from millstream.core.drift.model_reference import ModelReference
from millstream.core.drift.online_scores import OnlineScores
from millstream.core.drift.signals import distribution_signals, quality_signals
from millstream.core.drift.slot_summary import SLOT_MS, Summary, Tally
from millstream.core.drift.traffic import KEPT_SLOTS, traffic_signals
from millstream.core.drift.windowed import Windows

PATIENCE_SLOTS: Final = 336
"""A partition so far behind the newest without any report is not waited for; below `windowed.SLACK_SLOTS`."""


class Watch:
    """Everything that is known of scored events.

    Parameters
    ----------
    model : str
        Name of the model that is watched.
    reference_of : callable
        From a version to its reference; None if it has none.
    partitions : int
        Of the topic.
    monitors : Monitors
        As declared.
    topic : str
        Where scored events are, for evidence.
    policy : Policy

    Attributes
    ----------
    judged : int
        The newest slot that was; -1 before the first.
    version : int or None
        The model version that serves, as far as slots were judged.
    """

    def __init__(
        self,
        model: str,
        reference_of: Callable[[int], ModelReference | None],
        partitions: int,
        monitors: Monitors,
        topic: str,
        policy: Policy,
    ) -> None:
        self.model = model
        self.judged = -1
        self.version: int | None = None
        self._reference_of = reference_of
        self._partitions = partitions
        self._limits = monitors.limits
        self._topic = topic
        self._policy = policy
        self._windows: dict[int, Windows] = {}
        self._online = OnlineScores(monitors.windows_ms, monitors.budget.share(ONLINE_SHARE), topic)
        self._clocks: dict[int, int] = {}
        self._tallies: dict[int, Tally] = {}
        self._state = initial()

    def check(self, summary: Summary) -> None:
        """Raise ValueError if no partition of this topic, counting by the known references, can have reported this."""
        if summary.partition >= self._partitions or (summary.partition < 0 and summary.slot is not None):
            raise ValueError(f"partition {summary.partition} is none of the {self._partitions} of {self._topic}")
        for (version, _), block in summary.blocks.items():
            if version == ONLINE_VERSION:
                self._online.check(block)
            elif (windows := self._windows.get(version) or self._open(version)) is not None:
                windows.check(block)

    def update(self, summary: Summary) -> list[Alert]:
        """Process a partition's summary that passed `check`; return the alerts that follow."""
        for slot, tally in summary.tallies.items():
            if slot > self.judged - KEPT_SLOTS:
                self._tallies.setdefault(slot, Tally()).add(tally)
        for (version, slot), block in summary.blocks.items():
            if version == ONLINE_VERSION:
                self._online.add(summary.partition, slot, block)
                continue
            windows = self._windows.get(version) or self._open(version)
            if windows is not None:
                windows.add(summary.partition, slot, block)
        if summary.slot is None:
            return []
        before = self._clocks.get(summary.partition, -1)
        self._clocks[summary.partition] = max(before, summary.slot)
        if self.judged < 0:
            # The slot before the first reported one: windows are not full before that anyway. One event of long ago
            # is no reason to judge all the hours since.
            self.judged = max(min([*summary.tallies, summary.slot]), summary.slot - PATIENCE_SLOTS) - 1
        alerts = []
        while self.judged < self._closed():
            self.judged += 1
            alerts += self._judge(self.judged)
        return alerts

    def _open(self, version: int) -> Windows | None:
        reference = self._reference_of(version)
        if reference is None:
            return None
        cells = 0 if reference.cells is None else len(reference.cells.events)
        self._windows[version] = Windows(reference.binning(), reference.plan, cells)
        return self._windows[version]

    def _closed(self) -> int:
        """Return the newest slot that every partition waited for has closed."""
        far = max(self._clocks.values()) - PATIENCE_SLOTS
        slowest = min(self._clocks.values()) if len(self._clocks) == self._partitions else far
        return max(slowest, far) - 1

    def _judge(self, slot: int) -> list[Alert]:
        at_ms = (slot + 1) * SLOT_MS
        inputs: list[Evaluation | ModelReplaced] = []
        events = {version: windows.events_in(slot) for version, windows in self._windows.items()}
        serving = max(events, key=lambda version: (events[version], version), default=None)
        if serving is not None and events[serving] and serving != self.version:
            if self.version is not None:
                inputs.append(ModelReplaced(at_ms, self.model, serving))
            self.version = serving
            # A rollback starts with empty windows: what an earlier turn of the same version left behind is no window.
            self._windows = {
                each: held for each, held in self._windows.items() if each == serving or held.newest > slot
            }
        signals = list(traffic_signals(self._tallies, slot, SLOT_MS, self._limits))
        reference = None if self.version is None else self._reference_of(self.version)
        if self.version is not None and reference is not None:
            reading = self._windows[self.version].read(slot)
            about = self.model, self.version, self._topic
            if reference.thresholds:
                signals += distribution_signals(reading, reference, *about)
            signals += quality_signals(reading, reference, self._limits, *about)
        signals += self._online.judge(slot)
        inputs.append(Evaluation(at_ms, tuple(signals)))
        self._state, alerts = update(self._state, inputs, self._policy)
        self._tallies.pop(slot - KEPT_SLOTS + 1, None)
        return alerts

    def to_json(self) -> dict[str, Any]:
        """Return everything it knows as a JSON object."""
        return {
            "judged": self.judged,
            "version": self.version,
            "windows": [[version, each.to_json()] for version, each in sorted(self._windows.items())],
            "online": self._online.to_json(),
            "clocks": sorted(self._clocks.items()),
            "tallies": [[slot, each.to_json()] for slot, each in sorted(self._tallies.items())],
            "incidents": self._state.to_json(),
        }

    def load(self, raw: dict[str, Any]) -> None:
        """Go on from what `to_json` returned; ValueError if a reference is not the one it was made with."""
        self.judged, self.version = raw["judged"], raw["version"]
        self._windows = {}
        for version, held in raw["windows"]:
            windows = self._open(version)
            if windows is None:
                raise ValueError(f"version {version} of the model has no reference any more")
            windows.load(held)
        if "online" in raw:  # snapshots of earlier versions have none
            self._online.load(raw["online"])
        self._clocks = dict(raw["clocks"])
        self._tallies = {slot: Tally(*each) for slot, each in raw["tallies"]}
        self._state = State.from_json(raw["incidents"])
