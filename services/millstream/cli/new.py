"""``millstream new``: create a project."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from millstream.adapters.files.project_template import Template, write_project


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(new)


def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Absent or empty; its name is the project's.")],
    template: Annotated[
        Template, typer.Option(help="cards: card payments, as in `demo`. blank: values that devices report.")
    ] = "cards",
) -> None:
    """Create a project: settings, features, contract, a test and a README."""
    console = Console()
    written = write_project(folder, template)
    console.print(f"[bold]{folder.resolve().name}[/]: {len(written)} files in {folder.resolve()}", soft_wrap=True)
    for path in written:
        console.print(f"  {path}", highlight=False, markup=False)
    events = next(path for path in written if path.suffix == ".csv")
    console.print("next:")
    for command in (
        *((f"cd {shlex.quote(str(folder))}",) if folder.resolve() != Path.cwd() else ()),
        "millstream features show",
        f"millstream replay {events} --out out",
        "python -m pytest",
    ):
        console.print(f"  {command}", highlight=False, markup=False, soft_wrap=True)
