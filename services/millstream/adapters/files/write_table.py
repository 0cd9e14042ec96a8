"""Writes a batch as a Parquet, CSV or JSON-lines file, atomically."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl

from millstream.core.batch import Batch
from millstream.errors import Misconfigured


def check_writable(path: Path) -> None:
    """Refuse a path that `write_table` could not write, before the work is done.

    Raises
    ------
    Misconfigured
        Its ending is unknown or its directory is not there.
    """
    if path.suffix not in _WRITERS:
        raise Misconfigured(f"{path.name}: unknown format; supported endings: {', '.join(_WRITERS)}")
    if not path.absolute().parent.is_dir():
        raise Misconfigured(f"there is no directory {path.parent}")


def write_table(path: Path, batch: Batch) -> None:
    """Write a batch's columns, nulls as such; an existing file is replaced.

    Raises
    ------
    Misconfigured
        See `check_writable`.
    """
    check_writable(path)
    frame = pl.DataFrame(
        [
            pl.Series(name, values).set(pl.Series(batch.is_null(name)), None)
            if name in batch.nulls
            else pl.Series(name, values)
            for name, values in batch.columns.items()
        ]
    )
    unfinished = path.with_name(f"{path.name}.unfinished")
    _WRITERS[path.suffix](frame, unfinished)
    unfinished.replace(path)


_WRITERS: dict[str, Callable[[pl.DataFrame, Path], object]] = {
    ".parquet": lambda frame, path: frame.write_parquet(path, compression="zstd"),
    ".csv": lambda frame, path: frame.write_csv(path),
    ".jsonl": lambda frame, path: frame.write_ndjson(path),
}
