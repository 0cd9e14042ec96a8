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
from typing import TYPE_CHECKING, Any

from millstream.errors import Misconfigured
from millstream.settings import load_settings

if TYPE_CHECKING:
    import polars as pl

    from millstream.core.batch import Batch

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
    import polars as pl

    from millstream.app.assembly import assemble
    from millstream.app.replaying import History
    from millstream.core.avro.convert import to_batch
    from millstream.core.avro.match_columns import match_columns

    assembly = assemble(load_settings(project=project))
    if not rows:
        return Replayed([], [])
    fields = assembly.contract.schema.fields
    names = list(dict.fromkeys(name for row in rows for name in row))
    frame = pl.DataFrame([_series(name, [row.get(name) for row in rows]) for name in names])
    matched = match_columns(fields, names, {})
    if matched.problems:
        raise Misconfigured("the rows do not fit the contract:\n  " + "\n  ".join(matched.problems))
    events, faults = to_batch(fields, matched.columns, frame)
    if faults:
        lines = [f"row {each.row}, {each.field}: {each.detail}" for each in faults]
        raise Misconfigured("rows cannot be read as events:\n  " + "\n  ".join(lines))
    replayed = History(assembly).feed(events)
    return Replayed(_rows(replayed.scored), _rows(replayed.dead_letters))


def _series(name: str, values: list[Any]) -> pl.Series:
    """Return values as a column of their type, or as objects, each of which is converted on its own."""
    import polars as pl

    kinds = {type(value) for value in values} - {type(None)}
    return pl.Series(name, values, strict=True) if len(kinds) == 1 else pl.Series(name, values, dtype=pl.Object)


def _rows(batch: Batch) -> list[Row]:
    columns = {}
    for name, values in batch.columns.items():
        absent = batch.is_null(name).tolist()
        columns[name] = [None if gone else value for value, gone in zip(values.tolist(), absent, strict=True)]
    return [{name: values[row] for name, values in columns.items()} for row in range(batch.length)]
