"""The plan of a run with malformed messages, and its report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from millstream_lab.chaos.poison_outcomes import Row


@dataclass(frozen=True, slots=True)
class PoisonPlan:
    """What to do.

    Parameters
    ----------
    count : int
        Malformed messages; a quarter as many good events go among them.
    rounds : int
        Memory is looked at after each.
    """

    count: int
    seed: int
    contract: str = "transactions"
    rounds: int = 20
    partitions: int = 4


@dataclass
class PoisonReport:
    """What came of it; ``wrong`` is empty when everything is right."""

    plan: PoisonPlan
    rows: dict[str, Row] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    rss_bytes: list[int] = field(default_factory=list)
    messages: int = 0
    fixed: str = ""
    redriven: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    seconds: float = 0.0

    @property
    def slope_bytes(self) -> float:
        """Growth of the worker's memory over the second half, bytes per message."""
        late = self.rss_bytes[len(self.rss_bytes) // 2 :]
        if len(late) < 3:
            return 0.0
        per_round = self.messages / len(self.rss_bytes)
        return float(np.polyfit(np.arange(len(late)) * per_round, np.array(late, dtype=np.float64), 1)[0])
