"""Rows of a text file with separators, read strictly: a quote that does not close as it should costs one row, named.

A cell in quotes may hold separators, doubled quotes and line breaks; after the closing quote only a separator or the
end of the line may follow. A quote within a cell that does not begin with one is text, as an inch sign. Where a cell in
quotes is never closed or text follows its end, its first line is the row at fault and reading goes on at the next line.
"""

from __future__ import annotations

import codecs
import csv
import itertools
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from millstream.adapters.files.json_rows import is_text
from millstream.errors import Misconfigured

_SEPARATORS = (",", ";", "\t", "|")
_LONGEST_ROW = 1 << 20


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a file is written.

    Parameters
    ----------
    separator : str or None
        One character; None is detected from the header.
    quote : str or None
        One character; None: quotes are text.
    encoding : str
        A codec of Python's.
    """

    separator: str | None = None
    quote: str | None = '"'
    encoding: str = "utf-8"


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A row at fault: its text, what is wrong and, if lines are lost with it, which."""

    text: str
    reason: str
    detail: str


class CsvRows:
    """Rows of a file: the header first, then cells or what is wrong with them; blank lines are no rows.

    Parameters
    ----------
    lines : iterable of str
        Physical lines with their ends.
    separator : str
    quote : str or None
    before : int
        Lines of the file before these.
    """

    def __init__(self, lines: Iterable[str], separator: str, quote: str | None, before: int = 0) -> None:
        self._lines = iter(lines)
        self._again: deque[str] = deque()
        self._row: list[str] = []
        self._chars = 0
        self._line = before  # of the last line that was handed out
        self._quote = quote
        self._separator = separator
        self._reader = self._new_reader()
        self._width = 0

    def _new_reader(self) -> Iterator[list[str]]:
        if self._quote is None:
            return csv.reader(self._source(), delimiter=self._separator, quoting=csv.QUOTE_NONE, strict=True)
        return csv.reader(self._source(), delimiter=self._separator, quotechar=self._quote, strict=True)

    def _source(self) -> Iterator[str]:
        while True:
            if self._again:
                line = self._again.popleft()
            else:
                found = next(self._lines, None)
                if found is None:
                    return
                line = found
            self._line += 1
            self._row.append(line)
            self._chars += len(line)
            if self._chars > _LONGEST_ROW and len(self._row) > 1:
                raise csv.Error("unexpected end of data")
            yield line

    def header(self) -> list[str]:
        """Return the column names; empty where there is no line."""
        found = next(self, [])
        if isinstance(found, BrokenRow):
            raise Misconfigured(f"the header cannot be read: {found.detail}")
        self._width = len(found)
        return found

    def __iter__(self) -> Iterator[list[str] | BrokenRow]:
        return self

    def __next__(self) -> list[str] | BrokenRow:
        while True:
            self._row.clear()
            self._chars = 0
            try:
                cells = next(self._reader)
            except StopIteration:
                if not self._row:
                    raise
                return self._broken("unexpected end of data")
            except csv.Error as error:
                return self._broken(str(error))
            if len(self._row) > 1 and self._width and self._swallows(cells):
                return self._swallowed()
            if cells:
                return cells

    def _broken(self, problem: str) -> BrokenRow:
        """Return the row that begins where reading went wrong, and put its further lines back."""
        first, last = self._line - len(self._row) + 1, self._line
        text, rest = self._row[0], self._row[1:]
        self._again.extendleft(reversed(rest))
        self._line = first
        self._reader = self._new_reader()
        text = text.rstrip("\r\n")
        if "field larger" in problem and not rest:
            return BrokenRow("", "undecodable", f"the row in line {first} cannot be read: {problem}")
        if "end of data" in problem or "field larger" in problem:
            span = f"up to line {last}" if last > first else "there"
            detail = f"a quote that opens a cell in line {first} is not closed (read {span})"
        else:
            where = f"in line {last}" if last > first else "there"
            detail = f"a quote opens a cell in line {first}, and text follows the quote that closes it {where}"
        if rest:
            lines = f"line {first + 1}" if last == first + 1 else f"lines {first + 1} to {last}"
            detail += f"; {lines} of it are read as rows" if last > first + 1 else f"; {lines} of it is read as a row"
        return BrokenRow(text, "unclosed-quote", f"{detail}. Double a quote that is text, or declare --quote none")

    def _swallows(self, cells: list[str]) -> bool:
        """Return whether one of the lines that a cell in quotes runs over looks like a row of this file."""
        opening = next((place for place, cell in enumerate(cells) if "\n" in cell or "\r" in cell), len(cells))
        numeric = [_is_number(cell) for cell in cells[:opening]]
        for line in self._row[1:]:
            parts = line.rstrip("\r\n").split(self._separator)
            if len(parts) == self._width >= 2 and [_is_number(each) for each in parts[:opening]] == numeric:
                return True
        return False

    def _swallowed(self) -> BrokenRow:
        first, last = self._line - len(self._row) + 1, self._line
        detail = (
            f"a cell in quotes runs from line {first} to line {last} over lines that look like rows; none of them is "
            "read. Close or double the quote, or declare --quote none"
        )
        return BrokenRow("".join(self._row).rstrip("\r\n"), "unclosed-quote", detail)


@dataclass(frozen=True, slots=True)
class CsvHead:
    """How a file is read, and its column names: from its first lines."""

    separator: str
    quote: str | None
    encoding: str
    before: int
    columns: tuple[str, ...]


def open_rows(path: Path, head: CsvHead) -> tuple[IO[str], CsvRows]:
    """Return the file and its rows after the header."""
    file = path.open(encoding=head.encoding, errors="surrogateescape", newline="")
    for _ in range(head.before):
        file.readline()
    rows = CsvRows(file, head.separator, head.quote, head.before)
    rows.header()
    return file, rows


def read_head(path: Path, dialect: Dialect, by_ending: str) -> CsvHead:
    """Find out how a file is written.

    Raises
    ------
    Misconfigured
        It is in another encoding than declared, has no header of distinct names, or its separator is unclear.
    """
    encoding = _encoding(path, dialect.encoding)
    with path.open(encoding=encoding, errors="surrogateescape", newline="") as file:
        try:
            first = file.readline()
        except UnicodeError as error:
            raise Misconfigured(f"{path.name} is not written in {encoding}: {error}") from error
        declared = re.fullmatch(r"sep=(.)\s*", first)  # how Excel declares it
        before = 1 if declared is not None else 0
        line = file.readline() if declared is not None else first
        separator = dialect.separator or (declared[1] if declared is not None else None)
        separator = separator or detected_separator(path.name, line, by_ending)
        columns = CsvRows(itertools.chain([line], file), separator, dialect.quote, before).header()
    if not columns or len(set(columns)) < len(columns):
        twice = sorted({name for name in columns if columns.count(name) > 1})
        found = f"{', '.join(map(repr, twice))} is there more than once" if twice else "the file is empty"
        raise Misconfigured(f"{path.name} must begin with a line of distinct column names; {found}: {columns}")
    if not is_text("".join(columns)) or "\0" in "".join(columns):
        raise Misconfigured(
            f"{path.name}: its header is not {dialect.encoding.upper()}; declare how it is written with --encoding"
        )
    return CsvHead(separator, dialect.quote, encoding, before, tuple(columns))


def _encoding(path: Path, declared: str) -> str:
    """Return the codec to read with; refuse a byte order mark of another one."""
    with path.open("rb") as file:
        mark = file.read(4)
    for begins, codec in ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if mark.startswith(begins) and not declared.lower().replace("_", "-").startswith(("utf-16", "utf-32")):
            raise Misconfigured(f"{path.name} is written in {codec}; declare it with --encoding {codec}")
    return "utf-8-sig" if declared.lower() in {"utf-8", "utf8"} else declared


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def detected_separator(name: str, head: str, by_ending: str) -> str:
    """Return the separator of a header line.

    Parameters
    ----------
    name : str
        Of the file.
    by_ending : str
        What the file's ending stands for; it is taken where the header has it.

    Raises
    ------
    Misconfigured
        The header has several others.
    """
    present = [each for each in _SEPARATORS if each in head]
    if by_ending in present or not present:
        return by_ending
    if len(present) > 1:
        shown = " or ".join(repr(each) for each in present)
        raise Misconfigured(f"{name}: its columns may be separated by {shown}; declare it with --separator")
    return present[0]
