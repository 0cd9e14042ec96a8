"""``millstream drift``: reference and current distributions as a page, expected and realised metrics."""

from __future__ import annotations

import typer

from millstream.cli.drift.performance import performance
from millstream.cli.drift.report import report


def register(app: typer.Typer) -> None:
    """Add the commands."""
    drift = typer.Typer(
        help="Drift: reference and current distributions, expected and realised metrics.", no_args_is_help=True
    )
    drift.command()(report)
    drift.command()(performance)
    app.add_typer(drift, name="drift")
