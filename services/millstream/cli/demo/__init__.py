"""``millstream demo``: the main job, from nothing to live fraud scores on real Kafka."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from millstream.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    seconds: Annotated[
        int,
        typer.Option(
            min=5,
            help="Seconds to stream at that rate; longer if the stages cannot keep up.",
        ),
    ] = 80,
    rate: Annotated[int, typer.Option(min=1, help="Events a second to publish.")] = 3000,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the last run's topics and state first.")] = False,
    calm: Annotated[
        bool, typer.Option("--calm", help="Leave out the changes of the stream that cause alerts.")
    ] = False,
) -> None:
    """Start everything, train on April to July 2018, then score August onwards live, with labels seven days late.

    The online model learns from each label beside the champion, which decides. For some hours the stream is changed,
    so that alerts open and close. A second run continues where the first stopped. The servers run until
    `millstream down`.
    """
    from millstream.cli.demo.main_job import run_main_job

    run_main_job(load_settings(), Console(), seconds=seconds, rate=rate, fresh=fresh, calm=calm)
