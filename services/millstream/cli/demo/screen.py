"""The live view: rates, latency, lag, dead letters, last scores, fraud caught; quality maturing, the online model."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from millstream.cli.demo.alarms import Alarms, Incident
from millstream.cli.demo.learning import CONTENDERS, Learning
from millstream.cli.demo.watching import Seen

_DAYS = 8
_INCIDENTS = 6
_SPARKS = " ▁▂▃▄▅▆▇█"


def sparkline(values: list[float]) -> str:
    """Return values as a line of bars, the largest a full block."""
    top = max(values, default=0.0)
    if top <= 0:
        return ""
    return "".join(_SPARKS[min(8, round(8 * value / top))] for value in values)


def when(event_time_ms: int) -> str:
    """Return an event time as UTC text."""
    return datetime.fromtimestamp(event_time_ms / 1000, UTC).strftime("%d %b %Y %H:%M:%S") if event_time_ms else "-"


@dataclass(frozen=True, slots=True)
class Moment:
    """What a frame shows.

    Parameters
    ----------
    seen : Seen
        What came out.
    learning : Learning
        Of the stages `learn` and `quality`.
    alarms : Alarms
        Incidents so far.
    published, acked : int
        Events.
    labels : int
        Labels published.
    seconds_left : float
    """

    seen: Seen
    learning: Learning
    alarms: Alarms
    published: int
    acked: int
    labels: int
    seconds_left: float


def _percentiles(seen: Seen) -> tuple[float, float]:
    """Return median and 99th percentile of the newest latencies, milliseconds."""
    recent = np.array(list(seen.latencies_ms)[-5000:] or [np.nan])
    p50, p99 = np.percentile(recent, [50, 99])
    return float(p50), float(p99)


class Screen:
    """Draws the state of a run; keeps what rates need between two frames."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._before = (time.monotonic(), 0)
        self._rates: deque[float] = deque(maxlen=40)

    def frame(self, now: Moment) -> Group:
        """Return the next frame."""
        seen = now.seen
        labels = self._labels(now)
        with seen.lock:
            now_s = time.monotonic()
            elapsed_s = now_s - self._before[0]
            if elapsed_s >= 0.5:
                self._rates.append((seen.outcomes - self._before[1]) / elapsed_s)
                self._before = (now_s, seen.outcomes)
            return Group(self._figures(now), self._last(seen), self._fraud(seen), labels, _alerts(now.alarms.incidents))

    def line(self, now: Moment) -> str:
        """Return the state of the run in one line."""
        seen, days = now.seen, now.learning.days
        final = [day for day in days if day.final]
        alerts = [each.closed_ms is None for each in now.alarms.incidents]
        with seen.lock:
            p50, p99 = _percentiles(seen)
            return (
                f"{now.published:,} published, {seen.outcomes:,} answered, lag {max(0, now.acked - seen.outcomes):,}, "
                f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, {seen.dead_letters:,} dead letters, {seen.caught} of "
                f"{seen.frauds} frauds caught; {now.labels:,} labels published, {now.learning.examples:,} learnt, "
                f"{len(final)} days final; {sum(alerts)} alerts open, {len(alerts) - sum(alerts)} closed; "
                f"{max(0.0, now.seconds_left):.0f} s left"
            )

    def _figures(self, now: Moment) -> Panel:
        seen = now.seen
        p50, p99 = _percentiles(seen)
        table = Table.grid(padding=(0, 3))
        rate = self._rates[-1] if self._rates else 0.0
        table.add_row("events/s", f"[bold]{rate:,.0f}[/]", sparkline(list(self._rates)))
        table.add_row("end to end", f"p50 [bold]{p50:.0f}[/] ms", f"p99 [bold]{p99:.0f}[/] ms (produced to visible)")
        outcomes = f"{now.published:,} published, {seen.outcomes:,} answered"
        table.add_row("lag", f"[bold]{max(0, now.acked - seen.outcomes):,}[/]", outcomes)
        reasons = ", ".join(f"{reason} {count}" for reason, count in seen.reasons.most_common(3))
        table.add_row("dead letters", f"[bold]{seen.dead_letters:,}[/]", reasons)
        arms = ", ".join(f"{arm} {count:,}" for arm, count in seen.arms.most_common())
        table.add_row("answered by", self._model, arms)
        left = f"{max(0.0, now.seconds_left):.0f} s of streaming left"
        table.add_row("event time", when(seen.event_time_ms), left)
        return Panel(table, title="Millstream, live on Kafka", border_style="cyan")

    def _labels(self, now: Moment) -> Panel:
        """Return how quality matures and what the online model has learnt."""
        days, learning = now.learning.days, now.learning
        table = Table(box=None, pad_edge=False)
        table.add_column("day of the event")
        for name in ("labelled", "frauds known", *(f"AP {arm}" for arm in CONTENDERS)):
            table.add_column(name, justify="right")
        table.add_column("")
        for day in days[-_DAYS:]:
            scores = (f"{day.by_arm[arm]:.3f}" if arm in day.by_arm else "" for arm in CONTENDERS)
            state = "[green]final[/]" if day.final else "[yellow]open[/]"
            table.add_row(day.day, f"{day.labelled:.0%}", str(day.positives), *scores, state)
        lines = [
            f"{now.labels:,} labels published, 7 days late; the online model has learnt [bold]{learning.examples:,}[/]"
        ]
        losses = {name: each["log_loss"] for name, each in learning.before_learning.items() if "log_loss" in each}
        if losses:
            lines.append(
                "log-loss before learning: " + ", ".join(f"{name} {each:.4f}" for name, each in losses.items())
            )
        text = Text.from_markup(". ".join(lines))
        return Panel(Group(text, table) if days else text, title="labels come back", border_style="green")

    def _last(self, seen: Seen) -> Table:
        table = Table(title="last scores", expand=False)
        for name, side in (("event", "right"), ("event time", "left"), ("EUR", "right"), ("score", "right")):
            table.add_column(name, justify="right" if side == "right" else "left")
        table.add_column("decision")
        table.add_column("truth")
        for event, moment, amount, score, decision, fraud in seen.last:
            colour = "red" if decision == seen.positive else "green"
            truth = "[bold red]fraud[/]" if fraud else "genuine"
            table.add_row(event, when(moment), f"{amount:.2f}", f"{score:.4f}", f"[{colour}]{decision}[/]", truth)
        return table

    def _fraud(self, seen: Seen) -> Panel:
        recall = seen.caught / seen.frauds if seen.frauds else 0.0
        precision = seen.caught / seen.flagged if seen.flagged else 0.0
        text = Text.from_markup(
            f"[bold]{seen.caught}[/] of {seen.frauds} frauds caught ({recall:.0%}), {seen.flagged} events flagged "
            f"({precision:.0%} rightly), [bold]{seen.caught_eur:,.0f}[/] EUR stopped, "
            "as will be known in time."
        )
        return Panel(text, title="fraud", border_style="red")


def _alerts(incidents: list[Incident]) -> Panel:
    if not incidents:
        return Panel(Text("no alerts"), title="alerts", border_style="yellow")
    return Panel(incident_table(incidents[-_INCIDENTS:]), title="alerts", border_style="yellow")


def incident_table(incidents: list[Incident]) -> Table:
    """Return incidents as a table: what each is about, when it was opened and closed."""
    table = Table(box=None, pad_edge=False)
    for name in ("kind", "severity", "led by", "subjects", "opened", "closed"):
        table.add_column(name, justify="right" if name == "subjects" else "left")
    for each in incidents:
        closed = "[bold red]open[/]" if each.closed_ms is None else f"[green]{when(each.closed_ms)}[/]"
        table.add_row(each.kind, each.severity, each.what, str(each.subjects), when(each.opened_ms), closed)
    return table
