"""Replay a table of events through the stages in memory, into tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import polars as pl

from millstream.app.file_format import FileFormat, declared
from millstream.app.replay_file import DEAD_LETTERS_FILE, replay_file
from millstream.app.replay_labels import late_labels
from millstream.app.tables import files_of
from millstream.app.training_data import SCORED_FILE

if TYPE_CHECKING:
    from millstream.adapters.files.ingest import BadRow
    from millstream.app.assembly import Assembly
    from millstream.app.tables import Table


def replay_frames(
    assembly: Assembly,
    events: Table,
    labels: Table | None,
    *,
    model: str,
    mapping: dict[str, str],
    label_column: str | None,
    label_delay: str,
    file_format: FileFormat,
    fault: Callable[[BadRow], None],
    progress: Callable[[int, float], None],
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the scored events and the dead letters; see `millstream.app.replay_file.replay_file`."""
    if isinstance(events, Sequence) and not isinstance(events, str) and not events:
        # No rows have no names: those of the contract.
        events, label_column = pl.DataFrame(schema=dict.fromkeys(assembly.contract.schema.names, pl.String)), "none"
    with files_of(events=events, labels=labels) as (source, beside), TemporaryDirectory(prefix="millstream-") as folder:
        assert source is not None
        how = declared(file_format)
        late = late_labels(assembly, source, label_column, label_delay, beside, how)
        replay_file(
            assembly,
            source,
            Path(folder),
            model=model,
            mapping=mapping,
            late=late,
            declared=how,
            fault=fault,
            progress=progress,
        )
        return pl.read_parquet(Path(folder) / SCORED_FILE), pl.read_parquet(Path(folder) / DEAD_LETTERS_FILE)
