"""Bad rows of a file: the first ones on the screen, all of them in a file if requested."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from millstream.adapters.files.ingest import BadRow

_SHOWN = 20

Rejected = Annotated[Path | None, typer.Option("--rejected", help="Write every bad row to this file, as JSON lines.")]


class BadRows:
    """Keeps the first bad rows to show, and writes all of them if requested."""

    def __init__(self, path: Path | None) -> None:
        self.first: list[BadRow] = []
        self.path = path
        self._file: TextIO | None = None

    def __enter__(self) -> None:
        if self.path is not None:
            self._file = self.path.open("w", encoding="utf-8")

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def __call__(self, row: BadRow) -> None:
        if len(self.first) < _SHOWN:
            self.first.append(row)
        if self._file is not None:
            self._file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")

    def show(self, console: Console, reasons: dict[str, int], fate: str) -> None:
        """Print the first bad rows, how many there are by reason, and what became of them."""
        count = sum(reasons.values())
        if not count:
            return
        table = Table("row", "field", "value", "reason", "detail", title=f"{count:,} bad rows (rows count from 0)")
        for each in self.first:
            cells = (str(each.row), each.field, (each.value or "")[:40], each.reason, each.detail)
            table.add_row(*(escape(cell) for cell in cells))
        console.print(table)
        where = f"; all are in {self.path}" if self.path is not None else "; --rejected FILE writes all of them"
        counts = ", ".join(f"{reason} {n:,}" for reason, n in reasons.items())
        console.print(f"{counts}; {fate}{where}", highlight=False)
