"""The demo's past: simulate the book's stream, replay April to July, learn a champion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console

from millstream.adapters.files.write_table import write_table
from millstream.app.assembly import Assembly
from millstream.app.late_labels import Labels
from millstream.app.replaying import History
from millstream.cli.replay import progress_bar
from millstream.core.batch import Batch
from millstream.core.contracts import Contract
from millstream.core.simulation.simulate import DAY_S, LABEL_DELAY_MS, Simulation, simulate
from millstream.errors import Misconfigured

LIVE_FROM_MS = 1_533_081_600_000  # 2018-08-01T00:00:00Z
TRAIN_FROM_MS = 1_525_132_800_000  # 2018-05-01T00:00:00Z: the first month only fills the 30-day windows


@dataclass(frozen=True, slots=True)
class Past:
    """The simulated stream and where it turns live.

    Parameters
    ----------
    stream : DataFrame
        All transactions with their truth, in event time order; ``transaction_id`` is the position.
    live_row : int
        First row of August.
    """

    stream: pl.DataFrame
    live_row: int


SIMULATED = frozenset({"transaction_id", "customer_id", "terminal_id", "event_time_ms", "amount"})
"""Fields of the payments that are simulated."""


def require_payments(topic: str, contract: Contract) -> None:
    """Refuse a project whose events are no card payments as the demo simulates them.

    Raises
    ------
    Misconfigured
        Naming the topic and the fields that differ.
    """
    fields = {field.name for field in contract.schema.fields}
    if fields != SIMULATED:
        differ = [f"lacks {name}" for name in sorted(SIMULATED - fields)]
        differ += [f"has {name}" for name in sorted(fields - SIMULATED)]
        raise Misconfigured(
            f"the demo simulates card payments, with the fields {', '.join(sorted(SIMULATED))}, and the contract of "
            f"this project's topic {topic} {', '.join(differ)}; run it in a project that "
            "`millstream new DIR --template cards` wrote"
        )


def simulated(cache: Path, console: Console) -> Past:
    """Return the book's stream, simulated once and kept as Parquet."""
    path = cache / "transactions.parquet"
    if not path.is_file():
        with progress_bar(console) as bar:
            task = bar.add_task("simulate 183 days of card payments", total=None, note="")
            batch = simulate(Simulation(), lambda done, total: bar.update(task, completed=done, total=total))
        cache.mkdir(parents=True, exist_ok=True)
        part = path.with_name("part.parquet")
        write_table(part, batch)
        part.rename(path)
    stream = pl.read_parquet(path)
    live_row = int(np.searchsorted(stream["event_time_ms"].to_numpy(), LIVE_FROM_MS))
    return Past(stream, live_row)


def replay_past(assembly: Assembly, past: Past, console: Console) -> tuple[History, pl.DataFrame]:
    """Replay everything before August; return the replay, whose stores are full, and the features it computed."""
    history = History(assembly)
    names = [field.name for field in assembly.contract.schema.fields]
    events = past.stream.head(past.live_row).select(*names, "is_fraud")
    wanted = [assembly.contract.event_id, assembly.contract.event_time, assembly.contract.key]
    wanted += [column for column, _ in assembly.declaration.service.features]
    frames = []
    with progress_bar(console) as bar:
        task = bar.add_task("replay April to July through the stages", total=events.height, note="")
        for chunk in events.iter_slices(20_000):
            batch = Batch(chunk.height, {name: chunk[name].to_numpy() for name in names})
            times_ms = batch.columns[assembly.contract.event_time]
            labels = Labels.after(chunk["is_fraud"].to_numpy(), times_ms, LABEL_DELAY_MS)
            replayed = history.feed(batch, labels)
            scored = replayed.scored
            frames.append(pl.DataFrame({name: _nullable(scored, name) for name in wanted}))
            bar.update(task, completed=replayed.read)
    truth = past.stream.select(assembly.contract.event_id, "is_fraud")
    return history, pl.concat(frames).join(truth, on=assembly.contract.event_id, how="left", maintain_order="left")


def _nullable(batch: Batch, column: str) -> pl.Series:
    values = pl.Series(batch.columns[column])
    return values if column not in batch.nulls else values.set(pl.Series(batch.nulls[column]), None)


class Bookmark:
    """Where the last run stopped, in a small file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self._path.parent

    def read(self) -> Mapping[str, int] | None:
        """Return what was kept, or None on a first run."""
        return json.loads(self._path.read_text()) if self._path.is_file() else None

    def forget(self) -> None:
        """Start over."""
        self._path.unlink(missing_ok=True)

    def write(self, next_row: int) -> None:
        """Keep the next row to publish."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps({"next_row": next_row}))


__all__ = ["DAY_S", "LABEL_DELAY_MS", "Bookmark", "Past", "replay_past", "simulated"]
