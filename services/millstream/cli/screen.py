"""What commands print: tables that fit or else record blocks, values for people, and fewer lines without a terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.measure import Measurement
from rich.progress import Progress, ProgressColumn
from rich.table import Table
from rich.text import Text

_WIDE = 10_000
_PER_UNIT = {"_ms": 1_000, "_us": 1_000_000}
# How names of times end, apart from their unit; what else has such a unit is a duration.
_TIMES = re.compile(r"(.*_)?(at|from|to|until)|.*time")
_SHOWABLE_S = 62_135_596_800
"""Seconds from 1970 back to the year 1: what lies further off, either way, is no time of an event."""


def humane(name: str, value: object) -> str:
    """Return a field's value for a person: times as UTC, numbers rounded, null as nothing.

    Examples
    --------
    >>> humane("event_time_ms", 1533081600123), humane("score", 0.123456789), humane("amount", 12.5)
    ('2018-08-01 00:00:00.123', '0.1235', '12.5')
    >>> humane("gap_ms", 250), humane("field", None), humane("id", 1533081600123)
    ('250', '', '1533081600123')
    >>> humane("window_to_ms", 1533081600000), humane("at_ms", 0), humane("until_ms", 1 << 62)
    ('2018-08-01 00:00:00.000', '1970-01-01 00:00:00.000', '4611686018427387904')
    """
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float):
        return f"{value:.4f}".rstrip("0").rstrip(".")
    unit = _PER_UNIT.get(name[-3:]) if _TIMES.fullmatch(name[:-3]) else None
    if unit and isinstance(value, int) and abs(value / unit) < _SHOWABLE_S:
        return datetime.fromtimestamp(value / unit, UTC).isoformat(sep=" ", timespec="milliseconds")[:23]
    return str(value)


def print_rows(console: Console, rows: Sequence[Mapping[str, str]], title: str = "") -> None:
    """Print rows of the same names as a table if it fits the console, else each as a block: its first field, the rest.

    Nothing is ever cut off. In a block, values that are "" are left out.
    """
    names = list(rows[0]) if rows else []
    table = Table(title=title or None)
    for name in names:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*(Text(row[name]) for name in names))
    if Measurement.get(console, console.options.update(max_width=_WIDE), table).maximum <= console.width:
        console.print(table)
        return
    if title:
        console.print(Text(title, style="bold"))
    for row in rows:
        console.print(Text.assemble(f"{names[0]} ", (row[names[0]], "bold")), soft_wrap=True)
        for line in _packed([f"{name} {row[name]}" for name in names[1:] if row[name]], console.width - 2):
            console.print(Text(f"  {line}"), soft_wrap=True)


def _packed(parts: Sequence[str], width: int) -> list[str]:
    """Return the parts on as few lines as hold them unbroken; one too long has a line of its own."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + 3 + len(part) <= width:
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return lines


def progress(console: Console, *columns: ProgressColumn | str, transient: bool = True) -> Progress:
    """Return a progress bar, which draws nothing where there is no terminal."""
    return Progress(*columns, console=console, transient=transient, disable=not console.is_terminal)


def steps(console: Console, show: Callable[[str], None] | None = None) -> Callable[[str], None]:
    """Return a function that prints steps: each on a terminal, elsewhere only those that differ by more than numbers.

    Parameters
    ----------
    show : callable, optional
        How a terminal shows a step; default: a line.
    """
    printed: list[str] = []

    def on_step(text: str) -> None:
        if console.is_terminal and show is not None:
            show(text)
            return
        kind = re.sub(r"\d+ of ", "", text)
        if kind not in printed[-1:]:
            printed[:] = [kind]
            console.print(f"[dim]{text}[/]", highlight=False, soft_wrap=True)

    return on_step
