"""The plan of a chaos run, and its result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from millstream_lab.chaos.fault_context import FaultContext
from millstream_lab.chaos.fault_injector import InjectedFault


@dataclass(frozen=True, slots=True)
class ChaosPlan:
    """What to do.

    Parameters
    ----------
    faults : mapping of str to callable
        By name.
    names : iterable of str
        In the order in which they are done.
    rate : int
        Sound events a second.
    step_ms : int
        Event time between two events.
    workers : int
    spared : frozenset of str
        Workers that are never harmed.
    guarantee : str
        Of the workers.
    growths : int
        How often partitions are added, after everything else was checked.
    """

    faults: Mapping[str, Callable[[FaultContext], str]]
    names: Iterable[str]
    seed: int
    rate: int
    step_ms: int
    workers: int
    spared: frozenset[str] = frozenset()
    guarantee: str = "exactly_once"
    growths: int = 0


@dataclass
class ChaosResult:
    """What came of it; ``findings`` holds sentences by invariant, none where it holds."""

    deeds: list[InjectedFault] = field(default_factory=list)
    findings: dict[str, list[str]] = field(default_factory=dict)
    published: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    exits: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether every invariant holds."""
        return not any(self.findings.values())

    def find(self, invariant: str, wrong: list[str]) -> None:
        """Add findings."""
        self.findings.setdefault(invariant, []).extend(wrong)
