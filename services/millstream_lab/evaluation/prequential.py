"""Champion, online model and blend on events as they come, each knowing only what was known by then."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from millstream.adapters.models.river_pipelines import OnlineModel, load
from millstream.app.assembly import Assembly, assemble
from millstream.cli.models import metric_title
from millstream.cli.replay import progress_bar
from millstream.core.metrics import DAY_MS
from millstream.errors import Misconfigured
from millstream.settings import Settings
from millstream.stages.score.policy import BLEND, CHAMPION, ONLINE, Answering, AnswerPolicy
from millstream_lab.evaluation.by_day import by_day, overall
from millstream_lab.evaluation.champions import Plan, advance, day, events_from, grow, moments, served
from millstream_lab.evaluation.compare import serve_delayed
from millstream_lab.evaluation.plot import daily_png
from millstream_lab.evaluation.reference import reference_history

Floats = NDArray[np.float64]

ANSWERS: tuple[Answering, ...] = (CHAMPION, ONLINE, BLEND)


def run_prequential(
    settings: Settings,
    console: Console,
    plan: Plan,
    metric: str,
    fresh: bool,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Answer the reference stream's events by every contender, and show how good they were.

    Raises
    ------
    Misconfigured, Stop
        Saying what does not fit.
    """
    assembly = assemble(settings)
    declared = load(assembly.online_model_file, assembly.declaration.service)
    history = reference_history(assembly, console, fresh)
    found = compare(assembly, declared, history, plan, console)
    key = assembly.contract.key
    titles = {name: metric_title(name, key) for name in next(iter(found["overall"].values()))}
    if metric not in titles:
        raise Misconfigured(f"--metric {metric} is not measured; there are {', '.join(titles)}")
    _show(found, titles, metric, console)
    if picture is not None:
        heading = f"Answered live, labels {plan.label_delay_ms / DAY_MS:g} days later"
        picture.write_bytes(daily_png(found["daily"], titles, heading))
        console.print(f"drew {picture}", soft_wrap=True)
    if as_json:
        typer.echo(json.dumps(found))


def compare(
    assembly: Assembly, declared: OnlineModel, history: pl.DataFrame, plan: Plan, console: Console
) -> dict[str, Any]:
    """Return ``overall`` and ``daily`` metrics by contender, and what was done.

    Parameters
    ----------
    history : DataFrame
        A row per event, in event time order: event time, message key, the service's features, the label.
    """
    events = events_from(assembly, history, plan)
    ended_ms = int(events.times_ms[-1]) + 1
    answered = events.times_ms >= plan.from_ms
    trained = {"trained once": [plan.began_ms, plan.from_ms], "retrained": moments(plan, ended_ms)}
    scores: dict[str, Floats] = {}
    with progress_bar(console) as bar:
        models = grow(assembly, history, sorted({each for some in trained.values() for each in some}), plan, bar)
        for kind, at in trained.items():
            champion = served(models, at, events)
            stream = events.answered_by(champion, plan.label_delay_ms)
            task = bar.add_task(f"online model beside the champion {kind}", total=len(champion), note="")
            outcome = serve_delayed(declared, stream, plan.from_ms, progress=advance(bar, task))
            for answer in ANSWERS:
                policy = AnswerPolicy(answer, plan.online_share)
                given, _ = policy.choose(champion[answered], ~np.isnan(champion[answered]), outcome.scores[answered])
                scores[f"{answer}, {kind}" if answer == CHAMPION else f"{answer}, champion {kind}"] = given
    of = events.take(answered)
    daily = {name: by_day(of.labels, each, of.groups, of.times_ms) for name, each in scores.items()}
    return {
        "events": len(of.labels),
        "positives": int(of.labels.sum()),
        "from_ms": plan.from_ms,
        "to_ms": ended_ms,
        "trainings": {kind: len(at) - 1 for kind, at in trained.items()},
        "overall": {name: overall(of.labels, each, daily[name]) for name, each in scores.items()},
        "daily": daily,
    }


def _show(found: dict[str, Any], titles: Mapping[str, str], metric: str, console: Console) -> None:
    contenders = list(found["overall"])
    table = Table(title=f"Overall, {found['events']:,} events, {found['positives']:,} frauds", title_justify="left")
    table.add_column("")
    for title in titles.values():
        table.add_column(title, justify="right")
    for name in contenders:
        table.add_row(name, *(f"{found['overall'][name][each]:.4f}" for each in titles))
    daily = Table(title=f"By day: {titles[metric]}", title_justify="left")
    daily.add_column("")
    for name in contenders:
        daily.add_column(name, justify="right")
    for number in next(iter(found["daily"].values())):
        values = (found["daily"][name][number].get(metric) for name in contenders)
        daily.add_row(day(number * DAY_MS), *("" if value is None else f"{value:.3f}" for value in values))
    console.print(daily)
    console.print(table)
