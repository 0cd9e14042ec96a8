"""``millstream drift``: distributions then and now as a page, expected and realised figures, a benchmark."""

from __future__ import annotations

import typer

from millstream.cli.drift.bench import bench
from millstream.cli.drift.performance import performance
from millstream.cli.drift.report import report


def register(app: typer.Typer) -> None:
    """Add the commands."""
    drift = typer.Typer(help="Drift: reports of then and now; a benchmark.", no_args_is_help=True)
    drift.command()(report)
    drift.command()(performance)
    drift.command()(bench)
    app.add_typer(drift, name="drift")
