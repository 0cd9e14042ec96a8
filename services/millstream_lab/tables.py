"""Figures for people: tables on a terminal, and in the section of a Markdown page that a command writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from millstream.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class Table:
    """Figures as text, for a terminal and for Markdown; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def print_table(table: Table, console: Console) -> None:
    """Print a table."""
    shown = RichTable(title=table.title, title_justify="left")
    for position, column in enumerate(table.columns):
        shown.add_column(column, justify="right" if position else "left")
    for row in table.rows:
        shown.add_row(*row)
    console.print(shown)


def markdown_lines(table: Table) -> list[str]:
    """Return a table as lines of Markdown."""
    ruled = ["---", *["---:"] * (len(table.columns) - 1)]
    return [f"{table.title}:", "", *map(_line, (table.columns, ruled, *table.rows)), ""]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def write_section(file: Path, written_by: str, text: str) -> None:
    """Replace the figures of a page, between its two marks, or write a page of figures only.

    Parameters
    ----------
    file : Path
    written_by : str
        The command, as the first mark names it.
    text : str
        Markdown.

    Raises
    ------
    Misconfigured
        The page has no marks.
    """
    first, last = f"<!-- figures: written by {written_by} -->", "<!-- end of figures -->"
    section = f"{first}\n\n{text}\n{last}\n"
    if not file.exists():
        file.write_text(section, encoding="utf-8")
        return
    before, begin, rest = file.read_text(encoding="utf-8").partition(first)
    _old, end, after = rest.partition(last)
    if not begin or not end:
        raise Misconfigured(f"{file} has no lines {first} and {last} between which the figures belong; add them")
    file.write_text(before + section + after.removeprefix("\n"), encoding="utf-8")
