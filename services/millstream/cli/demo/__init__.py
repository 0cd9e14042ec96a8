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
            help="Stream the events of so many seconds at that rate; where stages cannot keep up, it takes longer.",
        ),
    ] = 80,
    rate: Annotated[int, typer.Option(min=1, help="Events a second to publish.")] = 3000,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw the last run's topics and state away first.")] = False,
    calm: Annotated[bool, typer.Option("--calm", help="Change nothing in the stream that would alarm.")] = False,
) -> None:
    """Start everything, learn from April to July 2018, then score August onwards live, labels seven days behind.

    The online model learns from each label as it comes, in the champion's shadow. For some hours the stream is changed,
    so that alerts open, and close when it is over. A second run goes on where the first stopped. The servers keep
    running until `millstream down`.
    """
    from millstream.cli.demo.main_job import run_main_job

    run_main_job(load_settings(), Console(), seconds=seconds, rate=rate, fresh=fresh, calm=calm)
