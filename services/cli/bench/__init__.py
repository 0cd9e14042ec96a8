"""``millstream bench``: the one-stage job against stock Faust, in the same run, with its method."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(bench)


def bench(
    events: Annotated[int, typer.Option(min=10_000, help="Events of Millstream's backlog.")] = 400_000,
    faust_events: Annotated[int, typer.Option(min=1_000, help="How many of them stock Faust gets.")] = 40_000,
    rate: Annotated[list[int] | None, typer.Option(help="Events per second of a paced part; repeatable.")] = None,
    paced_s: Annotated[float, typer.Option(min=2.0, help="Seconds of each paced part.")] = 10.0,
    limit_s: Annotated[float, typer.Option(min=5.0, help="Watch a backlog no longer than this.")] = 60.0,
    only: Annotated[str | None, typer.Option(help="millstream or faust; default: both.")] = None,
    guarantee: Annotated[str, typer.Option(help="Millstream's: exactly_once or at_least_once.")] = "exactly_once",
    seed: Annotated[int, typer.Option(help="Of the events and the model.")] = 7,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report here.")] = None,
    at_least: Annotated[float, typer.Option(help="Exit 1 below this many times Faust's events/s.")] = 0.0,
) -> None:
    """Measure the one-stage job against stock Faust, on a broker of its own: about three minutes.

    Exit code 1: an answer is wrong, an output is doubled under exactly_once, or the ratio is under --at-least.
    """
    from services.cli.bench.report import print_report
    from services.cli.bench.run import BenchPlan, run_bench
    from services.cli.replay import progress_bar

    if only not in {None, "millstream", "faust"}:
        raise typer.BadParameter(f"--only {only}: allowed are millstream and faust")
    sides = frozenset({"millstream", "faust"} if only is None else {only})
    rates = tuple(rate) if rate else (1000, 5000)
    plan = BenchPlan(events, faust_events, rates, paced_s, limit_s, seed, 4, guarantee, sides)
    console = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory(prefix="millstream-bench-", ignore_cleanup_errors=True) as directory,
        progress_bar(console) as bar,
    ):

        def track(step: str, total: int) -> Callable[[int], None]:
            task = bar.add_task(step, total=total, note="")
            return lambda done: bar.update(task, completed=done)

        report = run_bench(plan, Path(directory), lambda step: bar.console.print(step, highlight=False), track)
    print_report(report, Console())
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=1) + "\n")
    wrong = sum(len(side["wrong"]) for side in report["sides"])
    ours = [side for side in report["sides"] if side["name"] == "millstream" and side["guarantee"] == "exactly-once"]
    doubled = sum(side["throughput"]["doubled"] for side in ours)
    below = report["ratio"] is not None and report["ratio"]["events_per_s"] < at_least
    if wrong or doubled or below:
        raise typer.Exit(1)
