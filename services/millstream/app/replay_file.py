"""Replay a file of events through the stages in memory, into a directory of Parquet."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from millstream.adapters.files.parquet_out import ParquetOut
from millstream.app.event_file import events_of
from millstream.app.replaying import History
from millstream.app.training_data import SCORED_FILE
from millstream.errors import Misconfigured
from millstream.topology import DEAD_LETTERS

if TYPE_CHECKING:
    from millstream.adapters.files.ingest import BadRow
    from millstream.adapters.files.tabular import Declared
    from millstream.app.assembly import Assembly
    from millstream.app.replay_labels import Late
    from millstream.settings import Settings
    from millstream.stages.score.scorer import Champion

DEAD_LETTERS_FILE = "dead-letters.parquet"


@dataclass(frozen=True, slots=True)
class ReplayCounts:
    """How many rows a replay read and wrote.

    Parameters
    ----------
    read : int
        Events read.
    scored, dead_letters, duplicates : int
        What became of them.
    unreadable : int
        Rows of the file that could not be read as events; they were left out.
    seconds : float
        Wall time.
    """

    read: int
    scored: int
    dead_letters: int
    duplicates: int
    unreadable: int
    seconds: float


def replay_file(
    assembly: Assembly,
    source: Path,
    out: Path,
    *,
    start_ms: int | None = None,
    end_ms: int | None = None,
    model: str = "none",
    mapping: dict[str, str] | None = None,
    late: Late | None = None,
    declared: Declared | None = None,
    fault: Callable[[BadRow], None] = lambda _: None,
    progress: Callable[[int, float], None] = lambda _rows, _seconds: None,
) -> ReplayCounts:
    """Replay a file into a directory.

    Parameters
    ----------
    model : str
        ``champion``, a version number, or ``none`` (the declared rule).
    mapping : dict of str to str, optional
        From columns of the file to fields of the contract, where names differ.
    late : Late, optional
        Labels for label-derived features; without them, the features are as if no label became known.
    fault : callable
        Takes each row that could not be read.
    progress : callable
        Takes the number of rows read so far and the seconds since the start.

    Raises
    ------
    Misconfigured
        The file or the model cannot be read.
    """
    history = History(assembly, load_champion(assembly.settings, assembly, model))
    started_s = time.perf_counter()
    read = unreadable = 0
    last = assembly.topology.stages[-1]
    with (
        ParquetOut(out / SCORED_FILE, last.output_schema) as scored,
        ParquetOut(out / DEAD_LETTERS_FILE, assembly.contracts[DEAD_LETTERS].schema) as dead,
    ):
        for events, labels, bad in events_of(assembly, source, mapping or {}, start_ms, end_ms, late, declared, fault):
            unreadable += bad
            replayed = history.feed(events, labels)
            scored.write(replayed.scored)
            dead.write(replayed.dead_letters)
            read = replayed.read
            progress(read + unreadable, time.perf_counter() - started_s)
    seconds = time.perf_counter() - started_s
    return ReplayCounts(read, scored.rows, dead.rows, read - scored.rows - dead.rows, unreadable, seconds)


def load_champion(settings: Settings, assembly: Assembly, which: str) -> Champion | None:
    """Return the model a command names: ``none``, ``champion`` or a version number."""
    from millstream.core.models.manifest import define
    from millstream.stages.score.scorer import Champion

    if which == "none":
        return None
    from millstream.adapters.models.registry import open_registry

    service = assembly.declaration.service
    registry = open_registry(settings)
    found = registry.load(service.name, None if which == "champion" else int(which))
    if found is None:
        if which == "champion":
            return None
        raise Misconfigured(f"model {service.name} has no version {which}; see `millstream models list`")
    return Champion.load(found, service, settings.score_threads, define(assembly.declaration))
