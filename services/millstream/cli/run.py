"""``millstream init`` and ``millstream run``: topics and feature repo, then the stages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from millstream.cli import exit_code
from millstream.errors import MillstreamError
from millstream.settings import Settings, load_settings

if TYPE_CHECKING:
    from millstream.runtime.loop import StageLoop

logger = logging.getLogger(__name__)

_SPARE_S = 8.0  # more than a group member's session


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
    log_level: Annotated[str, typer.Option(help="DEBUG tells of each micro-batch.")] = "INFO",
    log_format: Annotated[str, typer.Option(help="human or json.")] = "human",
) -> None:
    """Run stages until SIGTERM or Ctrl-C. Several processes share the work by partitions."""
    from millstream.adapters.telemetry.logs import configure_logs, secrets_of

    settings = load_settings(guarantee=guarantee, worker_id=worker_id)
    configure_logs(log_format, level=log_level.upper(), secrets=secrets_of(settings))
    # Until the stages run, and finish what they are at, there is nothing to finish.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        asyncio.run(_serve(settings, stages or []))
    except MillstreamError as error:
        # Where this ended is read in the log, with time and level.
        logger.critical("%s: %s", type(error).__name__, error)
        sys.exit(exit_code(error))


async def _serve(settings: Settings, names: list[str]) -> None:
    from millstream.adapters.telemetry.endpoint import worker_file
    from millstream.app.workers import build_worker
    from millstream.runtime.worker import serve

    stopping = asyncio.Event()
    with contextlib.ExitStack() as stack:
        worker = build_worker(settings, names, stack)
        telling = asyncio.create_task(_tell_when_ready(worker.loops, worker_file(settings.state_dir, worker.name)))
        stack.callback(telling.cancel)
        await serve(
            worker.loops,
            name=worker.name,
            directory=settings.state_dir / "workers" / "faust",
            watchdog_ms=settings.watchdog_ms,
            transaction_timeout_ms=settings.transaction_timeout_ms,
            shutdown_deadline_ms=settings.shutdown_deadline_ms,
            stopping=stopping,
            app=worker.app,
        )


async def _tell_when_ready(loops: Sequence[StageLoop], address: Path) -> None:
    """Log one line once every stage has joined and recovered its partitions.

    Right after a crash a stage may join without partitions, until the session of its former self times out.
    """
    while not all(loop.joined for loop in loops):
        await asyncio.sleep(0.1)
    spare_at_s = time.monotonic() + _SPARE_S
    while not all(loop.partitions for loop in loops) and time.monotonic() < spare_at_s:
        await asyncio.sleep(0.1)
    stages = ", ".join(f"{loop.name}[{','.join(map(str, loop.partitions)) or 'no partition'}]" for loop in loops)
    told = json.loads(address.read_text())
    logger.info("ready: %s; metrics and health at http://%s:%s", stages, told["host"], told["port"])
