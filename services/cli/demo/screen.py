"""The live view: rates, latency, lag, dead letters, the last scores, fraud caught."""

from __future__ import annotations

import time
from collections import deque
from datetime import UTC, datetime

import numpy as np
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from services.cli.demo.watching import Seen

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


def _percentiles(seen: Seen) -> tuple[float, float]:
    """Return median and 99th percentile of the newest latencies, milliseconds."""
    recent = np.array(list(seen.latencies_ms)[-5000:] or [np.nan])
    p50, p99 = np.percentile(recent, [50, 99])
    return float(p50), float(p99)


class Screen:
    """Draws the state of a run; keeps what rates need between two frames."""

    def __init__(self, model: str, frauds_known: str) -> None:
        self._model = model
        self._note = frauds_known
        self._before = (time.monotonic(), 0)
        self._rates: deque[float] = deque(maxlen=40)
        self.top_rate = 0.0

    def frame(self, seen: Seen, published: int, acked: int, seconds_left: float) -> Group:
        """Return the next frame."""
        with seen.lock:
            now_s = time.monotonic()
            elapsed_s = now_s - self._before[0]
            outcomes = seen.outcomes
            if elapsed_s >= 0.5:
                rate = (outcomes - self._before[1]) / elapsed_s
                self._rates.append(rate)
                self.top_rate = max(self.top_rate, rate)
                self._before = (now_s, outcomes)
            return Group(
                self._figures(seen, published, acked, outcomes, seconds_left), self._last(seen), self._fraud(seen)
            )

    def line(self, seen: Seen, published: int, acked: int, seconds_left: float) -> str:
        """Return the state of the run in one line."""
        with seen.lock:
            outcomes = seen.outcomes
            p50, p99 = _percentiles(seen)
            return (
                f"{published:,} published, {outcomes:,} answered, lag {max(0, acked - outcomes):,}, p50 {p50:.0f} ms, "
                f"p99 {p99:.0f} ms, {seen.dead_letters:,} dead letters, {seen.caught} of {seen.frauds} frauds caught, "
                f"{max(0.0, seconds_left):.0f} s left"
            )

    def _figures(self, seen: Seen, published: int, acked: int, outcomes: int, seconds_left: float) -> Panel:
        p50, p99 = _percentiles(seen)
        table = Table.grid(padding=(0, 3))
        rate = self._rates[-1] if self._rates else 0.0
        table.add_row("events/s", f"[bold]{rate:,.0f}[/]", sparkline(list(self._rates)))
        table.add_row("end to end", f"p50 [bold]{p50:.0f}[/] ms", f"p99 [bold]{p99:.0f}[/] ms (produced to visible)")
        table.add_row(
            "lag", f"[bold]{max(0, acked - outcomes):,}[/]", f"{published:,} published, {outcomes:,} answered"
        )
        reasons = ", ".join(f"{reason} {count}" for reason, count in seen.reasons.most_common(3))
        table.add_row("dead letters", f"[bold]{seen.dead_letters:,}[/]", reasons)
        arms = ", ".join(f"{arm} {count:,}" for arm, count in seen.arms.most_common())
        table.add_row("answered by", self._model, arms)
        table.add_row("event time", when(seen.event_time_ms), f"{max(0.0, seconds_left):.0f} s of streaming left")
        return Panel(table, title="Millstream, live on Kafka", border_style="cyan")

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
            f"({precision:.0%} rightly), [bold]{seen.caught_eur:,.0f}[/] EUR stopped. {self._note}"
        )
        return Panel(text, title="fraud", border_style="red")
