"""``millstream labels``: how complete and how late the labels are, with conflicts and labels that fit no event."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

import typer
from rich.console import Console

from millstream.cli.screen import humane, print_rows
from millstream.settings import Settings, load_settings

_QUANTILES = (0.05, 0.5, 0.95, 0.99)
_WORDS = {
    "pending": "predictions without a label so far",
    "labelled": "predictions with a label",
    "retracted": "predictions whose labels were all retracted",
    "waiting": "labelled events without a prediction so far",
    "conflicts": "predictions whose sources contradict each other",
    "repeated_predictions": "predictions of an event that has one",
    "repeated_labels": "labels that changed nothing",
    "forgotten": "predictions never labelled, past the horizon",
    "unmatched": "labelled events never predicted, past the horizon",
    "retired": "labelled predictions, past the horizon",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(labels)


def labels(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show how complete the labels are, as last reported by the stage `join`."""
    console = Console()
    report = read_labels(load_settings())
    if as_json:
        typer.echo(json.dumps(report))
        return
    if not report["partitions"]:
        console.print("no figures on labels yet: the stage `join` publishes them at checkpoints (`millstream run`)")
        return
    rows = [{"what": words, "events": f"{report['events'][name]:,}"} for name, words in _WORDS.items()]
    print_rows(console, rows, f"Labels, of {report['partitions']} partitions")
    coverage = "none" if report["coverage"] is None else f"{report['coverage']:.2%}"
    console.print(f"labelled share of the predictions in the ledger: [bold]{coverage}[/]")
    delays = [f"{name} {days:.2f}" for name, days in report["delay_days"].items() if days is not None]
    if delays:
        console.print(f"days from event to label: {', '.join(delays)}")
    for name, words in (("scored_to_ms", "predictions"), ("labels_to_ms", "labels")):
        if report[name] is not None:
            console.print(f"{words} are complete up to {humane('event_time_ms', report[name])} UTC")


def read_labels(settings: Settings) -> dict[str, Any]:
    """Return the reports of the join's partitions, summed up.

    Raises
    ------
    Misconfigured, Retry, Stop
        There is no such topic, or it cannot be read.
    """
    import numpy as np

    from millstream.adapters.embedded.endpoints import resolve
    from millstream.adapters.kafka.client import read_committed
    from millstream.app.newest import partitions_of
    from millstream.core.ledger.tally import SIZE, LedgerReport, counters, coverage, decode_report, delay_quantile_s
    from millstream.topology import JOIN_CHANGELOG

    kafka = resolve(settings, redis=False).kafka
    partitions_of(kafka, JOIN_CHANGELOG)
    reports: dict[bytes, LedgerReport] = {}
    for messages in read_committed(kafka, JOIN_CHANGELOG, 0, 0, None):
        for message in messages:
            key, value = message.key() or b"", message.value()
            if b"|" not in key and value is not None:  # the others count predictions by day
                reports[key] = decode_report(value)
    total = sum((each.tally for each in reports.values()), np.zeros(SIZE, dtype=np.int64))
    reached = {
        name: [at for each in reports.values() if (at := getattr(each, name)) >= 0]
        for name in ("scored_to_ms", "labels_to_ms")
    }
    return {
        "partitions": len(reports),
        "events": counters(total),
        "coverage": _known(coverage(total)),
        "delay_days": {f"p{q * 100:g}": _known(delay_quantile_s(total, q) / 86_400) for q in _QUANTILES},
        # The slowest partition limits how far the labels are complete.
        **{name: min(times_ms, default=None) for name, times_ms in reached.items()},
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
