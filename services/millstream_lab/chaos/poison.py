"""``millstream chaos poison``: malformed messages by the thousand, and one outcome for each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from millstream_lab.chaos.poison_plan import PoisonReport

_SHOWN = 20
_FLAT_BYTES = 1024.0


def poison(
    count: Annotated[int, typer.Option(min=100, help="Malformed messages; a quarter as many good events go along.")] = (
        100_000
    ),
    seed: Annotated[int, typer.Option(help="Of the messages.")] = 7,
    contract: Annotated[str, typer.Option(help="Topic of the contract to make them from.")] = "transactions",
) -> None:
    """Send malformed messages through a worker of its own: each must get its one outcome, byte for byte.

    Then mends the contract and sends dead letters back. Servers, topics and state are made for this and thrown away;
    the share of dead letters that stops a stage is set to 1 (never). Exit code 1: an outcome is wrong, missing or
    doubled, or the worker's memory grows.
    """
    from millstream.cli.replay import progress_bar
    from millstream_lab.chaos.poison_plan import PoisonPlan
    from millstream_lab.chaos.poison_run import run_poison

    console = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory(prefix="millstream-poison-", ignore_cleanup_errors=True) as directory,
        progress_bar(console) as bar,
    ):

        def track(step: str, total: int) -> Callable[[int], None]:
            task = bar.add_task(step, total=total, note="")
            return lambda done: bar.update(task, completed=done)

        plan = PoisonPlan(count, seed, contract)
        report = run_poison(plan, Path(directory), lambda step: bar.console.print(step, highlight=False), track)
    print_report(report, Console())
    if report.wrong or not flat(report):
        raise typer.Exit(1)


def flat(report: PoisonReport) -> bool:
    """Whether the worker's memory stays as it is: growth per message, over the second half, below a kilobyte."""
    return report.slope_bytes < _FLAT_BYTES


def print_report(report: PoisonReport, console: Console) -> None:
    """Print the table by kind and what was wrong."""
    table = Table(title=f"contract {report.plan.contract}, seed {report.plan.seed}", title_justify="left")
    for name in ("kind", "sent", "answered", "dropped", "dead-lettered", "wrong"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    table.add_column("reasons")
    for kind, row in sorted(report.rows.items(), key=lambda item: (item[0].startswith("redriven"), item[0])):
        counts = (row.sent, row.answered, row.dropped, row.dead, row.wrong)
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in row.reasons.most_common())
        table.add_row(kind, *(f"{number:,}" for number in counts), reasons)
    rows = report.rows.values()
    totals = [sum(getattr(row, name) for row in rows) for name in ("sent", "answered", "dropped", "dead", "wrong")]
    table.add_row("all", *(f"{number:,}" for number in totals), "", style="bold")
    console.print(table)
    rss = [size / 1e6 for size in report.rss_bytes]
    console.print(
        f"worker memory: {rss[0]:.0f} MB after the first round, {max(rss):.0f} at most, {rss[-1]:.0f} at the end; "
        f"{report.slope_bytes:+.0f} bytes per message over the second half ({'flat' if flat(report) else 'GROWING'})\n"
        f"fixed: {report.fixed}; sent back: "
        + ", ".join(f"{reason} {count:,}" for reason, count in sorted(report.redriven.items()))
        + f"\n{report.cut} dead letters were too large to hold the record whole and keep its beginning, digest and "
        f"place\n{report.seconds:.0f} s; dropped are duplicates; MILLSTREAM_DEAD_LETTER_SHARE was 1 for this run",
        highlight=False,
    )
    for line in report.wrong[:_SHOWN]:
        console.print(f"[red]wrong[/] {line}", highlight=False)
    if len(report.wrong) > _SHOWN:
        console.print(f"... and {len(report.wrong) - _SHOWN:,} more", highlight=False)
