"""The benchmark's report as a table for people."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table


def print_report(report: dict[str, Any], console: Console) -> None:
    """Print figures, ratios and method."""
    method = report["method"]
    table = Table(title=f"One-stage job on {method['cores']} cores shared with the broker", title_justify="left")
    table.add_column("")
    for side in report["sides"]:
        table.add_column(side["name"], justify="right")
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "guarantee": lambda side: str(side["guarantee"]),
        "events/s": lambda side: _throughput(side, "events_per_s", 0),
        "CPU-s per 100 k events": lambda side: _throughput(side, "cpu_s_per_100k", 2),
        "peak memory, MB": lambda side: _throughput(side, "peak_rss_mb", 0),
        **{f"p50 / p99 ms at {rate:,}/s": partial(_latency, rate=rate) for rate in method["rates"]},
        "answers checked / wrong": lambda side: f"{side['checked']} / {len(side['wrong'])}" if side["checked"] else "",
    }
    for title, show in rows.items():
        table.add_row(title, *(show(side) for side in report["sides"]))
    console.print(table)
    for side in report["sides"]:
        done = side["throughput"]
        if done is not None and not done["complete"]:
            console.print(f"{side['name']}: the time limit came after {done['events']:,} events")
        if done is not None and done["doubled"]:
            console.print(f"{side['name']}: {done['doubled']:,} outputs were doubled")
        for sentence in side["wrong"][:5]:
            console.print(f"[red]{side['name']}: {sentence}[/]")
        console.print(f"[dim]{side['name']}: {side['how']}[/]")
    if report["ratio"] is not None:
        ratio = report["ratio"]
        console.print(
            f"millstream does [bold]{ratio['events_per_s']:.1f} times[/] the events per second of stock Faust, at "
            f"1/{_number(ratio['cpu_per_event'], 1)} of the CPU time per event"
        )
    for part in ("job", "backlog", "latency", "answers", "faust_note"):
        console.print(f"[dim]{method[part]}[/]")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _throughput(side: dict[str, Any], figure: str, digits: int) -> str:
    return "" if side["throughput"] is None else _number(side["throughput"][figure], digits)


def _latency(side: dict[str, Any], rate: int) -> str:
    for each in side["latency"]:
        if each["rate"] == rate:
            return (
                "falls behind"
                if each["falls_behind"]
                else f"{_number(each['p50_ms'], 0)} / {_number(each['p99_ms'], 0)}"
            )
    return "not tried: fell behind before" if side["latency"] else "-"
