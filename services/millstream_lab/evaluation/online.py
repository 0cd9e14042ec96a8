"""Several online models beside one champion, on the same events, with labels as late as they would be live."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from millstream.adapters.models.river_pipelines import OnlineModel, declare, load
from millstream.app.assembly import Assembly, assemble
from millstream.cli.models import metric_title
from millstream.cli.replay import progress_bar
from millstream.core.metrics import DAY_MS, evaluate
from millstream.errors import Misconfigured
from millstream.settings import Settings
from millstream_lab.evaluation.candidates import candidates
from millstream_lab.evaluation.champions import Events, Plan, advance, day, events_from, grow, moments, served
from millstream_lab.evaluation.compare import serve_delayed
from millstream_lab.evaluation.reference import reference_history

CHAMPION = "champion alone"


@dataclass(frozen=True, slots=True)
class Row:
    """How a contender did; what it takes is CPU time, and None for the champion."""

    metrics: Mapping[str, float]
    learn_us: float | None = None
    score_us: float | None = None
    snapshot_bytes: int | None = None


def run_online(
    settings: Settings, console: Console, plan: Plan, days: int, share: float, wanted: Sequence[str], as_json: bool
) -> None:
    """Measure the wanted models, and show how good and how quick they were.

    Raises
    ------
    Misconfigured, Stop
        Saying what does not fit.
    """
    assembly = assemble(settings)
    declared = _declared(assembly, wanted)
    history = reference_history(assembly, console, fresh=False)
    to_ms = plan.from_ms + days * DAY_MS
    events = events_from(assembly, history, plan)
    at = moments(plan, to_ms)
    rows: dict[str, Row] = {}
    with progress_bar(console) as bar:
        models = grow(assembly, history, at, plan, bar)
        few = _sampled(events.take(events.times_ms < to_ms), share)
        champion = served(models, at, few)
        answered = few.times_ms >= plan.from_ms
        of = few.take(answered)
        rows[CHAMPION] = Row(evaluate(of.labels, champion[answered], of.groups, of.times_ms))
        stream = few.answered_by(champion, plan.label_delay_ms)
        for name, each in declared.items():
            task = bar.add_task(name, total=len(champion), note="")
            found = serve_delayed(each, stream, plan.from_ms, progress=advance(bar, task))
            bar.update(task, note=f"AP {found.metrics['average_precision']:.3f}")
            rows[name] = Row(found.metrics, found.learn_us, found.score_us, found.snapshot_bytes)
    _show(rows, of, plan, to_ms, share, assembly.contract.key, console)
    if as_json:
        summary = {"events": len(of.labels), "positives": int(of.labels.sum()), "from_ms": plan.from_ms, "to_ms": to_ms}
        typer.echo(json.dumps({**summary, "share": share, "models": {name: asdict(row) for name, row in rows.items()}}))


def _declared(assembly: Assembly, wanted: Sequence[str]) -> dict[str, OnlineModel]:
    """Return the models asked for, built in ones by name and others by file; of none, all built in ones."""
    service = assembly.declaration.service
    features = load(assembly.online_model_file, service).features
    built_in = candidates()
    found = {}
    for name in wanted or built_in:
        if name in built_in:
            found[name] = declare(service.name, built_in[name](), features)
        elif Path(name).suffix == ".py":
            found[name] = load(Path(name), service)
        else:
            raise Misconfigured(f"{name!r} is no file (*.py) and none of: {'; '.join(built_in)}")
    return found


def _sampled(events: Events, share: float) -> Events:
    """Return all events of a share of the cards."""
    groups = np.unique(events.groups)
    chosen = np.random.default_rng(0).choice(groups, max(1, round(share * len(groups))), replace=False)
    return events.take(np.isin(events.groups, chosen))


def _show(
    rows: Mapping[str, Row], of: Events, plan: Plan, to_ms: int, share: float, key: str, console: Console
) -> None:
    names = list(rows[CHAMPION].metrics)
    until = day(to_ms - 1)
    table = Table(
        title=f"{day(plan.from_ms)} to {until}, {share:.0%} of the cards: {len(of.labels):,} events, "
        f"{int(of.labels.sum()):,} frauds",
        title_justify="left",
    )
    table.add_column("")
    for name in names:
        table.add_column(metric_title(name, key), justify="right")
    for title in ("us to learn", "us to score", "snapshot kB"):
        table.add_column(title, justify="right")

    def cost(value: float | None) -> str:
        return "" if value is None else f"{value:,.1f}"

    def precise(row: Row) -> Any:
        return -row.metrics["average_precision"]

    for name, row in sorted(rows.items(), key=lambda item: precise(item[1])):
        kilobytes = None if row.snapshot_bytes is None else row.snapshot_bytes / 1000
        costs = (cost(row.learn_us), cost(row.score_us), cost(kilobytes))
        table.add_row(name, *(f"{row.metrics[each]:.4f}" for each in names), *costs)
    console.print(table)
