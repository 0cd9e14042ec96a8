"""Parquet, CSV and JSON-lines files, read in chunks; a row that cannot be read is named, and the rest go on."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

import polars as pl

from millstream.adapters.files.csv_rows import BrokenRow, CsvHead, Dialect, open_rows, read_head
from millstream.adapters.files.json_rows import is_text, json_column, json_problem, json_rows
from millstream.adapters.files.parquet_rows import parquet_columns, parquet_frames
from millstream.core.avro.reading import Reading
from millstream.core.batch import Rejection
from millstream.errors import Misconfigured

Format = Literal["parquet", "csv", "json lines"]
_FORMATS: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "json lines",
    ".ndjson": "json lines",
    ".json": "json lines",
}


@dataclass(frozen=True, slots=True)
class Declared:
    """What the user declares about a file.

    Parameters
    ----------
    dialect : Dialect
        Of a CSV file.
    reading : Reading
        Units, zone and decimal mark of its values.
    """

    dialect: Dialect = field(default_factory=Dialect)
    reading: Reading = field(default_factory=Reading)


NOTHING_DECLARED = Declared()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows of a file.

    Parameters
    ----------
    first_row : int
        Position of the first row in the file, from 0 (a CSV header is no row).
    frame : DataFrame of shape (n, columns)
        The rows, rejected ones included, as nulls.
    rejections : list of Rejection
        Rows that could not be read; ``row`` counts from the start of the chunk.
    raw : dict of int to str
        The text of the rejected rows.
    """

    first_row: int
    frame: pl.DataFrame
    rejections: list[Rejection]
    raw: dict[int, str]


@dataclass(frozen=True, slots=True)
class TabularFile:
    """A file of rows.

    Parameters
    ----------
    path : Path
        Where it is.
    format : str
        How to read it.
    columns : tuple of str
        Column names. For JSON lines the names of all lines.
    rows_at_most : int
        How many there are; in text files blank lines and line breaks within cells count too.
    head : CsvHead or None
        How a CSV file is written.
    reading : Reading
        How its values are to be read.
    """

    path: Path
    format: Format
    columns: tuple[str, ...]
    rows_at_most: int
    head: CsvHead | None = None
    reading: Reading = NOTHING_DECLARED.reading

    def chunks(
        self, columns: Sequence[str], start: int = 0, limit: int | None = None, size: int = 20_000
    ) -> Iterator[Chunk]:
        """Yield the rows from ``start`` on, at most ``limit`` of them, in chunks of at most ``size``.

        Parameters
        ----------
        columns : sequence of str
            The ones wanted.
        """
        readers = {"parquet": _parquet_chunks, "json lines": _json_chunks}
        read = readers[self.format] if self.head is None else functools.partial(_csv_chunks, self.head)
        at = 0
        left = limit
        for chunk in read(self.path, list(dict.fromkeys(columns)), size):
            height = chunk.frame.height
            skip = min(max(0, start - at), height)
            take = height - skip if left is None else min(height - skip, left)
            if take:
                yield _slice(chunk, at, skip, take)
            at += height
            left = None if left is None else left - take
            if left == 0:
                return


def open_table(path: Path, declared: Declared = NOTHING_DECLARED) -> TabularFile:
    """Look at a file's name and head; of JSON lines at all names.

    Raises
    ------
    Misconfigured
        The file is not there, its format is unknown, or its head cannot be read.
    """
    if not path.is_file():
        raise Misconfigured(f"there is no file {path}")
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise Misconfigured(f"{path.name}: unknown format; supported endings: {', '.join(_FORMATS)}")
    if kind == "parquet":
        columns, rows = parquet_columns(path)
        return TabularFile(path, kind, columns, rows, reading=declared.reading)
    if kind == "csv":
        head = read_head(path, declared.dialect, "\t" if path.suffix.lower() == ".tsv" else ",")
        return TabularFile(path, kind, head.columns, _lines(path) - 1, head, declared.reading)
    return TabularFile(path, kind, *_json_names(path), reading=declared.reading)


def _json_names(path: Path) -> tuple[tuple[str, ...], int]:
    """Return the names of all lines, since one that only a later line has is a column too, and the number of rows."""
    names: dict[str, None] = {}
    rows = 0
    objects = 0
    for rows, (text, value) in enumerate(json_rows(path), 1):
        if isinstance(value, dict):
            names |= value  # the values are not looked at
            objects += 1
        elif rows == 1 and text.startswith("["):
            raise Misconfigured(f"{path.name} is a JSON array; write one object a line, as `jq -c '.[]'` does")
    if rows and not objects:
        raise Misconfigured(f"{path.name} has no line that is a JSON object; write one object a line")
    return tuple(names), rows


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return 1 + sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def _slice(chunk: Chunk, at: int, skip: int, take: int) -> Chunk:
    if skip == 0 and take == chunk.frame.height:
        return Chunk(at, chunk.frame, chunk.rejections, chunk.raw)
    kept = [
        Rejection(each.row - skip, each.reason, each.field, each.detail)
        for each in chunk.rejections
        if skip <= each.row < skip + take
    ]
    raw = {row - skip: text for row, text in chunk.raw.items()}
    return Chunk(at + skip, chunk.frame.slice(skip, take), kept, raw)


def _parquet_chunks(path: Path, columns: list[str], size: int) -> Iterator[Chunk]:
    for frame in parquet_frames(path, columns, size):
        yield Chunk(0, frame, [], {})


def _csv_chunks(head: CsvHead, path: Path, columns: list[str], size: int) -> Iterator[Chunk]:
    # Row by row, not a columnar reader: a ragged or broken row must be named and must not end the file.
    places = [head.columns.index(column) for column in columns]
    width = len(head.columns)
    empty = [""] * width
    file, lines = open_rows(path, head)
    with file:
        while found := list(islice(lines, size)):
            rejections, raw, rows = [], {}, []
            for row, cells in enumerate(found):
                problem = _csv_problem(row, cells, width, head.encoding)
                rows.append(empty if problem is not None or isinstance(cells, BrokenRow) else cells)
                if problem is not None:
                    rejections.append(problem)
                    raw[row] = _shown(cells.text if isinstance(cells, BrokenRow) else head.separator.join(cells))
            data = {name: [cells[place] for cells in rows] for name, place in zip(columns, places, strict=True)}
            yield Chunk(0, pl.DataFrame(data, schema=dict.fromkeys(columns, pl.String)), rejections, raw)


def _csv_problem(row: int, cells: list[str] | BrokenRow, width: int, encoding: str) -> Rejection | None:
    if isinstance(cells, BrokenRow):
        return Rejection(row, cells.reason, "", cells.detail)
    if len(cells) != width:
        return Rejection(row, "columns", "", f"the row has {len(cells)} cells, the header {width}")
    text = "".join(cells)
    if not is_text(text):
        codec = encoding.removesuffix("-sig").upper()
        return Rejection(row, "encoding", "", f"the row is not {codec}; another encoding is declared with --encoding")
    if "\0" in text:
        return Rejection(row, "encoding", "", "the row holds a NUL character, which no text has")
    return None


def _shown(text: str) -> str:
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _json_chunks(path: Path, columns: list[str], size: int) -> Iterator[Chunk]:
    lines = json_rows(path)
    while pairs := list(islice(lines, size)):
        rejections, raw, rows = [], {}, []
        for row, (text, value) in enumerate(pairs):
            problem = json_problem(row, value, columns)
            if problem is not None:
                rejections.append(problem)
                raw[row] = text
            rows.append({} if problem is not None else value)
        frame = pl.DataFrame([json_column(name, [row.get(name) for row in rows]) for name in columns])
        yield Chunk(0, frame, rejections, raw)
