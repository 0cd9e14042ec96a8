"""``millstream consume``: read a topic as any subscriber does, decoded."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from millstream.cli.screen import humane, print_rows
from millstream.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(consume)


def consume(
    topic: Annotated[str, typer.Argument(help="e.g. predictions, scored, dead-letters, transactions.")],
    last: Annotated[int, typer.Option(min=1, help="How many of the newest records.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new ones until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show the newest committed records of a topic."""
    from millstream.app.consuming import Consumption

    records = Consumption(load_settings(), topic)
    rows = records.newest(last)
    if not rows:
        Console(stderr=as_json).print(f"{records.topic} has no committed records yet")
    elif as_json:
        for row in rows:
            typer.echo(json.dumps(row, default=_jsonable))
    else:
        every = dict.fromkeys(name for row in reversed(rows) for name in row)
        names = [name for name in every if not name.endswith(("manifest", "body"))]
        print_rows(Console(), [{name: humane(name, row.get(name)) for name in names} for row in rows], records.topic)
    if follow:
        for row in records.rest(follow=True):
            typer.echo(json.dumps(row, default=_jsonable))


def _jsonable(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else str(value)
