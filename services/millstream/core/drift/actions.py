"""Actions on alerts (acknowledge, silence), and which alerts they suppress."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Action:
    """One field each of ``schemas/alerts.actions.avsc``."""

    id: str
    action: Literal["acknowledge", "silence"]
    alert_id: str
    kind: str
    feature: str
    until_ms: int
    by: str
    note: str
    at_ms: int

    def __post_init__(self) -> None:
        if not (self.alert_id or self.kind or self.feature):
            raise ValueError("an action must say which alerts it is about: an id, a kind or a feature")

    def about(self, alert: Mapping[str, Any]) -> bool:
        """Whether an alert (a row of ``schemas/alerts.avsc``) is meant."""
        return (
            self.alert_id in {"", alert["id"]}
            and self.kind in {"", alert["kind"]}
            and self.feature in {"", alert["feature"]}
        )


def silenced_by(alert: Mapping[str, Any], actions: Iterable[Action], now_ms: int) -> Action | None:
    """Return the silence that holds longest over an alert; None if none does."""
    over = [each for each in actions if each.action == "silence" and each.until_ms > now_ms and each.about(alert)]
    return max(over, key=lambda each: (each.until_ms, each.id), default=None)


def acknowledged_by(alert: Mapping[str, Any], actions: Iterable[Action]) -> Action | None:
    """Return the newest acknowledgement of an alert; None if there is none."""
    taken = [each for each in actions if each.action == "acknowledge" and each.about(alert)]
    return max(taken, key=lambda each: (each.at_ms, each.id), default=None)
