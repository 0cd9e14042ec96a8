"""Parquet, CSV and JSON-lines files, read in chunks; a row that cannot be read is named, and the rest go on."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import polars as pl

from services.core.batch import Rejection
from services.errors import Misconfigured

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
_NAMES_FROM_ROWS = 1000


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
        Column names. For JSON lines those of the first thousand rows.
    rows_at_most : int
        How many there are; in text files blank lines and line breaks within cells count too.
    """

    path: Path
    format: Format
    columns: tuple[str, ...]
    rows_at_most: int

    def chunks(
        self, columns: Sequence[str], start: int = 0, limit: int | None = None, size: int = 20_000
    ) -> Iterator[Chunk]:
        """Yield the rows from ``start`` on, at most ``limit`` of them, in chunks of at most ``size``.

        Parameters
        ----------
        columns : sequence of str
            The ones wanted.
        """
        readers = {"parquet": _parquet_chunks, "csv": _csv_chunks, "json lines": _json_chunks}
        at = 0
        left = limit
        for chunk in readers[self.format](self.path, list(dict.fromkeys(columns)), size):
            height = chunk.frame.height
            skip = min(max(0, start - at), height)
            take = height - skip if left is None else min(height - skip, left)
            if take:
                yield _slice(chunk, at, skip, take)
            at += height
            left = None if left is None else left - take
            if left == 0:
                return


def open_table(path: Path) -> TabularFile:
    """Look at a file's name and head.

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
        import pyarrow
        import pyarrow.parquet

        try:
            metadata = pyarrow.parquet.read_metadata(path)
        except pyarrow.ArrowInvalid as error:
            raise Misconfigured(f"{path.name} cannot be read as Parquet: {error}") from error
        return TabularFile(path, kind, tuple(metadata.schema.to_arrow_schema().names), metadata.num_rows)
    if kind == "csv":
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            header = next(csv.reader(file, delimiter=_delimiter(path)), [])
        if not header or len(set(header)) < len(header):
            raise Misconfigured(f"{path.name} must begin with a line of distinct column names; found: {header}")
        return TabularFile(path, kind, tuple(header), _lines(path) - 1)
    names: dict[str, None] = {}
    for chunk in islice(_json_rows(path), _NAMES_FROM_ROWS):
        if isinstance(chunk[1], dict):
            names |= dict.fromkeys(chunk[1])
    return TabularFile(path, kind, tuple(names), _lines(path))


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
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        batches = file.iter_batches(batch_size=size, columns=columns)
        while True:
            try:
                batch = next(batches, None)
            except (pyarrow.ArrowException, OSError) as error:
                raise Misconfigured(f"{path.name} is damaged: {error}") from error
            if batch is None:
                return
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)
            yield Chunk(0, frame, [], {})


def _delimiter(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","


def _csv_chunks(path: Path, columns: list[str], size: int) -> Iterator[Chunk]:
    # The standard reader, not a columnar one: a ragged or broken row must be named and must not end the file.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=_delimiter(path))
        header = next(reader)
        places = [header.index(column) for column in columns]
        empty = [""] * len(header)
        lines = _csv_rows(reader)
        while found := list(islice(lines, size)):
            rejections, raw, rows = [], {}, []
            for row, cells in enumerate(found):
                problem = _csv_problem(row, cells, len(header))
                rows.append(empty if problem is not None or isinstance(cells, csv.Error) else cells)
                if problem is not None:
                    rejections.append(problem)
                    raw[row] = "" if isinstance(cells, csv.Error) else _shown(_delimiter(path).join(cells))
            data = {name: [cells[place] for cells in rows] for name, place in zip(columns, places, strict=True)}
            yield Chunk(0, pl.DataFrame(data, schema=dict.fromkeys(columns, pl.String)), rejections, raw)


def _csv_problem(row: int, cells: list[str] | csv.Error, width: int) -> Rejection | None:
    if isinstance(cells, csv.Error):
        return Rejection(row, "undecodable", "", f"the row cannot be read: {cells}")
    if len(cells) != width:
        return Rejection(row, "columns", "", f"the row has {len(cells)} cells, the header {width}")
    if not _is_text("".join(cells)):
        return Rejection(row, "encoding", "", "the row is not UTF-8")
    return None


def _csv_rows(reader: Iterator[list[str]]) -> Iterator[list[str] | csv.Error]:
    """Yield each row's cells, or what is wrong with it; blank lines are no rows."""
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield error
            continue
        if cells:
            yield cells


def _is_text(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(text: str) -> str:
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield each line's text and value; the value is the error where the line is no JSON. Blank lines are no rows."""
    with path.open("rb") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError as error:
                value = error
            yield line.decode(errors="backslashreplace").rstrip("\r\n"), value


def _json_chunks(path: Path, columns: list[str], size: int) -> Iterator[Chunk]:
    lines = _json_rows(path)
    while pairs := list(islice(lines, size)):
        rejections, raw, rows = [], {}, []
        for row, (text, value) in enumerate(pairs):
            problem = None
            if isinstance(value, ValueError):
                problem = Rejection(row, "undecodable", "", f"the line is not JSON: {value}")
            elif not isinstance(value, dict):
                problem = Rejection(row, "undecodable", "", "the line is no JSON object")
            else:
                problem = _json_problem(row, value, columns)
            if problem is not None:
                rejections.append(problem)
                raw[row] = text
            rows.append({} if problem is not None else value)
        frame = pl.DataFrame([_json_series(name, [row.get(name) for row in rows]) for name in columns])
        yield Chunk(0, frame, rejections, raw)


def _json_problem(row: int, value: dict[str, Any], columns: list[str]) -> Rejection | None:
    for name in columns:
        cell = value.get(name)
        if isinstance(cell, dict | list):
            return Rejection(row, "type", name, f"found {cell!r}, which is no single value")
        if isinstance(cell, str) and not _is_text(cell):
            return Rejection(row, "encoding", name, "half a surrogate pair, which is no text")
    return None


def _json_series(name: str, values: list[Any]) -> pl.Series:
    kinds = {type(value) for value in values} - {type(None)}
    largest = 2**53 if float in kinds else 2**63 - 1
    if kinds <= {int, float} and all(abs(value) <= largest for value in values if type(value) is int):
        return pl.Series(name, values, dtype=pl.Float64 if float in kinds else pl.Int64)
    if len(kinds) == 1 and kinds <= {str, bool}:
        return pl.Series(name, values)
    # Mixed kinds and long numbers become the text they were written as, which `to_batch` reads exactly.
    return pl.Series(name, [v if v is None or isinstance(v, str) else json.dumps(v) for v in values], dtype=pl.String)
