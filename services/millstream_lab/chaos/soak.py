"""A long run at a steady rate with faults: what may grow is sampled and drawn."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from millstream.adapters.telemetry.process_usage import usage_of
from millstream_lab.chaos.fault_injector import InjectedFault
from millstream_lab.chaos.run import ChaosRun

STEP_MS = 60_000
"""Event time between two events: windows and lateness are full, and keys begin to expire, after a few minutes."""
FAULTS = (
    "kill -9 anywhere",
    "Redis flushed",
    "worker joins and leaves",
    "model swapped in flight",
    "SIGTERM under load",
    "Redis kill -9",
    "coordinator unavailable",
    "kill -9 in a checkpoint",
)


def names_for(minutes: float, gap_s: float, seed: int) -> Iterator[str]:
    """Yield faults in turn, shuffled by seed, one every ``gap_s`` seconds, until the time is over."""
    order = list(FAULTS)
    random.Random(seed).shuffle(order)
    started_s = time.monotonic()
    for number, name in enumerate(itertools.cycle(order), 1):
        while (elapsed_s := time.monotonic() - started_s) < number * gap_s:
            if elapsed_s > minutes * 60:
                return
            time.sleep(0.2)
        yield name


@dataclass(frozen=True, slots=True)
class Reading:
    """What one moment showed.

    Parameters
    ----------
    at_s : float
        Seconds since sampling began.
    rss_mb : dict of str to float
        Resident memory by worker.
    descriptors : dict of str to int
        Open file descriptors by worker; empty where the system does not report them.
    p50_ms, p99_ms : float
        Of the predictions that came since the last reading: published to visible; NaN if there were none.
    changelog_mb : float
        What the changelog topics take on the broker's disk.
    """

    at_s: float
    rss_mb: dict[str, float]
    descriptors: dict[str, int]
    p50_ms: float
    p99_ms: float
    changelog_mb: float


@dataclass
class Readings:
    """Takes a reading every few seconds in a thread of its own."""

    interval_s: float = 5.0
    taken: list[Reading] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, run: ChaosRun) -> None:
        """Start."""
        self._thread = threading.Thread(target=self._run, args=(run,), name="readings", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, run: ChaosRun) -> None:
        started_s = time.monotonic()
        known = 0
        while not self._ending.wait(self.interval_s):
            recent = list(run.observer.recent)
            fresh = recent[known:] if len(recent) < (run.observer.recent.maxlen or 0) else []
            known = len(recent)
            sent = run.publisher.sent_at_s
            waits_ms = [(at_s - sent[number]) * 1000 for at_s, number in fresh if number in sent] or [float("nan")]
            pids = {name: pid for name in run.cluster.running() if (pid := run.cluster.pid(name)) is not None}
            self.taken.append(
                Reading(
                    time.monotonic() - started_s,
                    {name: usage_of(pid, with_children=False).rss_bytes / 1e6 for name, pid in pids.items()},
                    {name: count for name, pid in pids.items() if (count := descriptors(pid)) is not None},
                    float(np.percentile(waits_ms, 50)),
                    float(np.percentile(waits_ms, 99)),
                    _changelog_bytes(run.cluster.directory / "kafka" / "data") / 1e6,
                )
            )


def descriptors(pid: int) -> int | None:
    """Return how many files a process has open, None if the system does not report it or the process has ended."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return None


def _changelog_bytes(data: Path) -> int:
    total = 0
    for directory in data.glob("*.changelog-*"):
        for file in directory.glob("*.log"):
            try:
                total += file.stat().st_size
            except FileNotFoundError:
                continue  # a segment that compaction has just replaced
    return total


def slope_per_hour(times_s: Sequence[float], values: Sequence[float], skip_s: float) -> float:
    """Return the slope of the straight line nearest to the values after ``skip_s`` seconds, per hour; NaN with fewer
    than ten.
    """
    kept = [(t, v) for t, v in zip(times_s, values, strict=True) if t >= skip_s and not np.isnan(v)]
    if len(kept) < 10:
        return float("nan")
    return float(np.polyfit([t for t, _ in kept], [v for _, v in kept], 1)[0]) * 3600


def print_readings(readings: Sequence[Reading], console: Console) -> None:
    """Print how each figure was in the middle third and in the last, and its slope over both."""
    times_s = [each.at_s for each in readings]
    third = times_s[-1] / 3 if times_s else 0.0
    table = Table(title="What must stay flat", title_justify="left")
    for heading in ("", "middle third, median", "last third, median", "slope per hour"):
        table.add_column(heading, justify="right" if heading else "left")
    series = {
        "memory of worker-1, MB": [each.rss_mb.get("worker-1", np.nan) for each in readings],
        "descriptors of worker-1": [float(each.descriptors.get("worker-1", np.nan)) for each in readings],
        "p50, ms": [each.p50_ms for each in readings],
        "p99, ms": [each.p99_ms for each in readings],
        "changelogs, MB": [each.changelog_mb for each in readings],
    }
    for title, values in series.items():
        middle = [v for t, v in zip(times_s, values, strict=True) if third <= t < 2 * third]
        last = [v for t, v in zip(times_s, values, strict=True) if t >= 2 * third]
        slope = slope_per_hour(times_s, values, third)
        table.add_row(title, f"{np.nanmedian(middle):.1f}", f"{np.nanmedian(last):.1f}", f"{slope:+.1f}")
    console.print(table)


def readings_json(readings: Sequence[Reading]) -> list[dict[str, Any]]:
    """Return readings as JSON values."""
    return [
        {name: None if isinstance(v, float) and np.isnan(v) else v for name, v in asdict(each).items()}
        for each in readings
    ]


def draw(readings: Sequence[Reading], deeds: Sequence[InjectedFault], path: Path) -> None:
    """Draw memory, descriptors, latency and changelog size over time, faults as vertical lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 11), layout="constrained")
    panels = figure.subplots(4, 1, sharex=True)
    minutes = [each.at_s / 60 for each in readings]
    workers = sorted({name for each in readings for name in each.rss_mb})
    for name in workers:
        style = "-" if name == "worker-1" else ":"
        panels[0].plot(minutes, [each.rss_mb.get(name, np.nan) for each in readings], style, label=name)
        panels[1].plot(minutes, [each.descriptors.get(name, np.nan) for each in readings], style, label=name)
    panels[2].plot(minutes, [each.p50_ms for each in readings], label="p50")
    panels[2].plot(minutes, [each.p99_ms for each in readings], label="p99")
    panels[3].plot(minutes, [each.changelog_mb for each in readings])
    panels[2].set_yscale("log")
    for panel, title in zip(
        panels,
        ("worker memory, MB", "open file descriptors", "published to visible, ms", "changelog on disk, MB"),
        strict=True,
    ):
        panel.set_ylabel(title)
        panel.grid(alpha=0.3)
        for deed in deeds:
            panel.axvline(deed.at_s / 60, color="tab:red", alpha=0.25, linewidth=0.8)
    panels[0].set_ylim(bottom=0)
    panels[1].set_ylim(bottom=0)
    panels[3].set_ylim(bottom=0)
    panels[0].legend(loc="lower right")
    panels[2].legend(loc="upper right")
    panels[3].set_xlabel("minutes; red lines: faults; worker-1 is never harmed")
    figure.savefig(path, format="png", dpi=90)
