"""Alerts and silences as rows for a person, and as JSON for a program."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from millstream.cli.screen import humane

if TYPE_CHECKING:
    from collections.abc import Mapping

    from millstream.core.drift.actions import Action

_STANDING = (
    "id",
    "event",
    "severity",
    "kind",
    "subject",
    "subjects",
    "monitor",
    "statistic",
    "threshold",
    "opened",
)
_TOLD = ("time", "event", "reason", "severity", "subject", "monitor", "statistic", "threshold", "subjects")


def standing_row(row: Mapping[str, Any], closed: bool = False) -> dict[str, str]:
    """Return an incident as listed; `closed`: with the time of its end."""
    state = (
        "silenced" if row["silenced"] else f"acknowledged by {row['acknowledged']['by']}" if row["acknowledged"] else ""
    )
    values = {**_values(row), "id": row["id"][:8]}
    ended = {"closed": humane("at_ms", row["at_ms"]) if row["event"] == "close" else ""} if closed else {}
    return {**{name: humane(name, values[name]) for name in _STANDING}, **ended, "state": state}


def history_row(row: Mapping[str, Any]) -> dict[str, str]:
    """Return one alert of an incident; what leads it may be another subject each time."""
    values = _values(row)
    return {name: humane(name, values[name]) for name in _TOLD}


def silence_row(silence: Action) -> dict[str, str]:
    """Return a silence: its own id, what it is about, and until when."""
    about = {"incident": silence.alert_id, "kind": silence.kind, "feature": silence.feature}
    return {
        "id": silence.id,
        "about": ", ".join(f"{name} {value}" for name, value in about.items() if value),
        "until": humane("until_ms", silence.until_ms),
        "by": silence.by,
        "note": silence.note,
    }


def json_line(row: Mapping[str, Any]) -> str:
    """Return a row as a line of JSON; a statistic without bound, which JSON does not know, is null."""
    from millstream.adapters.reports.alert_sinks import finite

    return json.dumps(finite(row), ensure_ascii=False, allow_nan=False)


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    about_model = f"model {row['model']}" if row["model"] else ""
    return {
        **row,
        "subject": row["feature"] or about_model,
        "subjects": row["subject_count"],
        "opened": humane("opened_at_ms", row["opened_at_ms"]),
        "time": humane("at_ms", row["at_ms"]),
    }
