"""Tables given to the Python API as files, and messages about them in the API's terms."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from millstream.errors import MillstreamError

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from millstream.adapters.files.ingest import BadRow

    Table: TypeAlias = pl.DataFrame | pd.DataFrame | Sequence[Mapping[str, Any]] | Path | str

PARAMETERS: Mapping[str, str] = {
    "--label-column none": 'label_column="none"',
    "--quote none": 'quote="none"',
    "--truncate-times": "truncate_times=True",
    "--from": "start",
    "--to": "end",
    "--as-of": "as_of",
    "--encoding": "encoding",
    "--gap": "gap",
    "--label-column": "label_column",
    "--label-delay": "label_delay",
    "--labels": "labels",
    "--quote": "quote",
    "--separator": "separator",
    "--time-unit": "time_unit",
    "--time-zone": "time_zone",
    "--warm-up": "warm_up",
}
"""Parameters of the API by the command-line options that messages name."""
_MAPPING = re.compile(r"--map COLUMN=(\w+)")
_UNIT = re.compile(r"--time-unit (\w+)=(\w+)")
_OPTION = re.compile("|".join(rf"{option}(?![\w-])" for option in PARAMETERS))
_COMMANDS = re.compile(r"(`[^`]*`)")


@contextmanager
def files_of(**tables: Table | None) -> Iterator[tuple[Path | None, ...]]:
    """Give a file for each table, in order; errors of the block name the tables and the API's parameters.

    Parameters
    ----------
    **tables : Table or None
        By the name of the API's parameter. A path is given as it is.
    """
    with TemporaryDirectory(prefix="millstream-") as folder:
        unique = uuid.uuid4().hex
        files = {
            name: None if table is None else _file_of(table, Path(folder) / f"{name}-{unique}")
            for name, table in tables.items()
        }
        named = {str(file): name for name, file in files.items() if file is not None and file.parent == Path(folder)}
        try:
            yield tuple(files.values())
        except MillstreamError as error:
            text = str(error)
            for file, name in named.items():
                text = text.replace(file, f"table {name!r}").replace(Path(file).name, f"table {name!r}")
            raise type(error)(in_python(text)) from error


def in_python(text: str) -> str:
    """Return a message with the API's parameters instead of command-line options; commands in it stay.

    Examples
    --------
    >>> in_python("no column for 'value'. Name it with --map COLUMN=value")
    "no column for 'value'. Name it with columns={'COLUMN': 'value'}"
    >>> in_python("give a file with --labels, or --label-column none; run `millstream replay EVENTS --out DIR`")
    'give a file with labels, or label_column="none"; run `millstream replay EVENTS --out DIR`'
    """
    return "".join(each if each.startswith("`") else _translated(each) for each in _COMMANDS.split(text))


def _translated(text: str) -> str:
    text = _MAPPING.sub(r"columns={'COLUMN': '\1'}", text)
    text = _UNIT.sub(r"time_unit={'\1': '\2'}", text)
    return _OPTION.sub(lambda found: PARAMETERS[found[0]], text)


def bad_row_in_python(row: BadRow) -> BadRow:
    """Return a fault whose detail names the API's parameters."""
    return replace(row, detail=in_python(row.detail))


def _file_of(table: Table, path: Path) -> Path:
    """Return a file with the rows: the one that was given, or a new one at ``path`` and its suffix."""
    if isinstance(table, str | Path):
        return Path(table)
    import polars as pl

    if isinstance(table, Sequence):
        rows = cast("Sequence[Mapping[str, Any]]", table)
        file = path.with_suffix(".jsonl")
        file.write_text("".join(f"{json.dumps(dict(row), default=_as_text)}\n" for row in rows), encoding="utf-8")
        return file
    file = path.with_suffix(".parquet")
    (table if isinstance(table, pl.DataFrame) else pl.from_pandas(table)).write_parquet(file)
    return file


def _as_text(value: object) -> str:
    """Return a cell that JSON has no type for as text: times as ISO 8601, decimals and UUIDs as they are written."""
    return value.isoformat() if isinstance(value, date | time) else str(value)
