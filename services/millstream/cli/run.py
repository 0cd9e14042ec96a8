"""``millstream init`` and ``millstream run``: topics and feature repo, then the stages."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from typing import Annotated

import typer
from rich.console import Console

from millstream.cli import exit_code
from millstream.errors import MillstreamError
from millstream.settings import Settings, load_settings

logger = logging.getLogger(__name__)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(init)
    app.command()(run)


def init(
    alter: Annotated[bool, typer.Option(help="Also set the retention of topics that are there.")] = False,
) -> None:
    """Create the topics, publish their schemas and apply the Feast repo. Safe to repeat."""
    from millstream.app.setup import initialise

    console = Console()
    initialise(load_settings(), console.print, alter)


def run(
    stages: Annotated[
        list[str] | None, typer.Argument(help="Stages to run; default: all, in this one process.")
    ] = None,
    guarantee: Annotated[str | None, typer.Option(help="exactly_once or at_least_once.")] = None,
    worker_id: Annotated[
        str | None, typer.Option(help="Stable worker name; default: a free slot of this machine.")
    ] = None,
    log_level: Annotated[str, typer.Option(help="DEBUG logs each micro-batch.")] = "INFO",
    log_format: Annotated[str, typer.Option(help="human or json.")] = "human",
) -> None:
    """Run stages until SIGTERM or Ctrl-C. Several processes share the work by partitions."""
    from millstream.adapters.telemetry.logs import configure_logs, secrets_of

    settings = load_settings(guarantee=guarantee, worker_id=worker_id)
    configure_logs(log_format, level=log_level.upper(), secrets=secrets_of(settings))
    # Until the stages run, and finish what they are at, there is nothing to finish.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        asyncio.run(_run(settings, stages or []))
    except MillstreamError as error:
        # Where this ended is read in the log, with time and level.
        logger.critical("%s: %s", type(error).__name__, error)
        sys.exit(exit_code(error))


async def _run(settings: Settings, stages: list[str]) -> None:
    from millstream.app.running import run_stages

    await run_stages(settings, stages, asyncio.Event())
