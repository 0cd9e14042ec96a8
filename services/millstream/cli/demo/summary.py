"""The summary at the end of the demo: counts, and champion, online model and blend side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from millstream.cli.demo.alarms import Alarms
from millstream.cli.demo.feed import Feed
from millstream.cli.demo.learning import METRICS, Learning
from millstream.cli.demo.screen import incident_table
from millstream.cli.demo.watching import Seen

_TITLES = ("average precision", "AUC", "card precision@100", "log-loss", "Brier")


def summarise(console: Console, seen: Seen, learning: Learning, feed: Feed, interrupted: bool) -> None:
    """Print how much was published, scored, caught and learnt."""
    sent = feed.publisher.deliveries
    latencies = np.array(list(seen.latencies_ms) or [float("nan")])
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99])
    table = Table(title="stopped by Ctrl-C" if interrupted else "results", show_header=False)
    table.add_row("published and acknowledged", f"{sent.acked:,}")
    table.add_row("publishing waited for stages", f"{feed.held_s:.1f} s")
    table.add_row("predictions", f"{seen.predictions:,}")
    table.add_row("dead letters", f"{seen.dead_letters:,}")
    table.add_row("events with two predictions", f"{seen.doubled:,}")
    table.add_row("events without an outcome", f"{max(0, sent.acked - seen.outcomes):,}")
    table.add_row("end to end, produced to visible", f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms")
    recall = seen.caught / seen.frauds if seen.frauds else 0.0
    table.add_row("frauds caught", f"{seen.caught} of {seen.frauds} ({recall:.0%}), {seen.caught_eur:,.0f} EUR")
    table.add_row("flagged", f"{seen.flagged}, {seen.caught / seen.flagged if seen.flagged else 0:.0%} rightly")
    table.add_row("labels published, a week after their events", f"{feed.labels:,}")
    table.add_row("examples the online model has learnt", f"{learning.examples:,}")
    console.print(table)


def compare(console: Console, learning: Learning, picture: Path) -> None:
    """Print the metrics of the models on the same events, and plot quality by day."""
    from millstream.app.quality_plot import picture as plot

    found = learning.comparison()
    if found is None:
        console.print(
            "There is no day yet that the online model has scored and of which all labels are known: it begins a week "
            "after the stream, and its labels come a week later still. `millstream demo` continues from here.",
            highlight=False,
            soft_wrap=True,
        )
    else:
        between = f"{found.days[0]} to {found.days[-1]}" if len(found.days) > 1 else found.days[0]
        days = "1 day" if len(found.days) == 1 else f"{len(found.days)} days"
        console.print(
            f"[bold]Champion, online model and blend[/], mean of {days} ({between}) with all labels: "
            f"{found.events:,} events, {found.positives:,} frauds",
            highlight=False,
            soft_wrap=True,
        )
        table = Table()
        table.add_column("")
        for title in _TITLES:
            table.add_column(title, justify="right")
        for arm, means in found.means.items():
            cells = (f"{means[metric]:.4f}" if metric in means else "" for metric in METRICS)
            table.add_row(arm, *cells)
        console.print(table)
    if shown := learning.shown:
        picture.write_bytes(plot(shown, "png"))
        console.print(f"written: {picture}", soft_wrap=True)


def list_alerts(console: Console, alarms: Alarms) -> None:
    """Print every incident of the run."""
    incidents = alarms.incidents
    if not incidents:
        console.print("There were no alerts.")
        return
    console.print("[bold]Alerts[/], by event time")
    console.print(incident_table(incidents))
