"""Run a project in memory: events in, features, decisions and dead letters out, without a server.

Examples
--------
In a project that `millstream new` wrote::

    from millstream.testing import replay

    run = replay([{"id": "e1", "device_id": "d1", "event_time_ms": 1_767_225_600_000, "value": 10.0}])
    assert run.scored[0]["decision"] == "accept"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millstream.errors import Misconfigured

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of the events.

    Parameters
    ----------
    scored : list of dict
        Records of the topic `scored`: the event's fields, score and decision, and each feature as
        ``{view}__{feature}``. Times are in milliseconds since the epoch.
    dead_letters : list of dict
        Records of the topic `dead-letters`.
    """

    scored: list[Row]
    dead_letters: list[Row]


def replay(rows: Sequence[Mapping[str, Any]], project: Path | None = None) -> Replayed:
    """Run events through the project's stages in memory, on a clock that follows the events' times.

    Decisions are those of the declared rule, since no model is loaded. Features made of labels are null: no label is
    known.

    Parameters
    ----------
    rows : sequence of mapping
        Events in order, each by the names of the contract's fields.
    project : Path, optional
        The project's folder, or one below it; default: the working directory.

    Raises
    ------
    Misconfigured
        The project is wrong, or a row cannot be read as an event.
    """
    from millstream.app import project as projects

    if not rows:
        return Replayed([], [])
    replayed = projects.open(project).replay(rows, label_column="none")
    if replayed.unreadable:
        lines = [f"row {each.row}, {each.field}: {each.detail}" for each in replayed.unreadable]
        raise Misconfigured("rows cannot be read as events:\n  " + "\n  ".join(lines))
    return Replayed(replayed.scored.to_dicts(), replayed.dead_letters.to_dicts())
