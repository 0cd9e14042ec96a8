"""Champion, online model and blend on events as they come, each knowing only what was known by then."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from services.adapters.evaluation_plot import daily_png
from services.adapters.lightgbm_model import TextModel
from services.adapters.river_pipelines import CHAMPION_SCORE, OnlineModel, load
from services.cli.assembly import Assembly, assemble
from services.cli.demo.reference import LABEL, reference_history
from services.cli.models import metric_title
from services.cli.replay import progress_bar
from services.cli.train import longest_window_ms
from services.core.batch import Batch
from services.core.evaluation.by_day import by_day, overall
from services.errors import Misconfigured
from services.learn.compare import History, serve_delayed
from services.retrain.fit import Growth
from services.retrain.split import Window
from services.retrain.train import TrainSpec, train
from services.settings import Settings

Floats = NDArray[np.float64]

_HOLDOUT = 0.02
"""Of each training's history: it is measured on what comes after."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is answered, and by whom.

    Parameters
    ----------
    from_ms : int
        First event answered; milliseconds since the epoch.
    warm_up_ms : int
        So long before, a first champion answers, and the online model begins to learn from its examples.
    every_ms : int
        How often the retrained champion is trained anew, from ``from_ms`` on.
    history_ms : int
        How much each training sees.
    label_delay_ms : int
        A label is known so long after its event.
    online_share : float
        Weight of the online model's probability in the blend, in [0, 1].
    """

    from_ms: int
    warm_up_ms: int
    every_ms: int
    history_ms: int
    label_delay_ms: int
    online_share: float


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
        heading = "Answered live, labels 7 days later" if plan.label_delay_ms == 7 * 86_400_000 else "Answered live"
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
    contract = assembly.contract
    times_ms = history[contract.event_time].cast(pl.Int64).to_numpy()
    began_ms, ended_ms = plan.from_ms - plan.warm_up_ms, int(times_ms[-1]) + 1
    if times_ms[0] > began_ms - plan.label_delay_ms or ended_ms <= plan.from_ms:
        raise Misconfigured("the stream does not reach over the warm-up and what is to be answered; see --from")
    first = int(np.searchsorted(times_ms, began_ms))
    served = history[first:]
    labels, groups = served[LABEL].cast(pl.Boolean).to_numpy(), served[contract.key].to_numpy()
    names = [name for name, _ in assembly.declaration.service.features]
    matrix = np.ascontiguousarray(served.select(pl.col(names).cast(pl.Float64).fill_null(float("nan"))).to_numpy())
    times_ms = times_ms[first:]
    answered = times_ms >= plan.from_ms
    moments = {
        "trained once": [began_ms, plan.from_ms],
        "retrained": [began_ms, *range(plan.from_ms, ended_ms, plan.every_ms)],
    }
    scores: dict[str, Floats] = {}
    with progress_bar(console) as bar:
        models = _models(assembly, history, sorted({each for some in moments.values() for each in some}), plan, bar)
        for kind, at in moments.items():
            champion = _served(models, at, times_ms, matrix)
            columns = {name: matrix[:, place] for place, name in enumerate(names)} | {CHAMPION_SCORE: champion}
            stream = History(Batch(len(labels), columns), times_ms, times_ms + plan.label_delay_ms, labels, groups)
            task = bar.add_task(f"online model beside the champion {kind}", total=len(labels), note="")
            outcome = serve_delayed(declared, stream, plan.from_ms, progress=_advance(bar, task))
            online = np.where(np.isnan(outcome.scores), champion, outcome.scores)
            scores[f"champion, {kind}"] = champion[answered]
            scores[f"online, champion {kind}"] = online[answered]
            scores[f"blend, champion {kind}"] = ((1 - plan.online_share) * champion + plan.online_share * online)[
                answered
            ]
    of = labels[answered], groups[answered], times_ms[answered]
    daily = {name: by_day(of[0], each, of[1], of[2]) for name, each in scores.items()}
    return {
        "events": int(answered.sum()),
        "positives": int(of[0].sum()),
        "from_ms": plan.from_ms,
        "to_ms": ended_ms,
        "trainings": {kind: len(at) - 1 for kind, at in moments.items()},
        "overall": {name: overall(of[0], each, daily[name]) for name, each in scores.items()},
        "daily": daily,
    }


def _models(
    assembly: Assembly, history: pl.DataFrame, moments: Sequence[int], plan: Plan, bar: Progress
) -> dict[int, TextModel]:
    """Train a champion at each moment, on the labels known by then."""
    declaration, contract = assembly.declaration, assembly.contract
    growth = Growth(threads=os.cpu_count() or 1)
    task = bar.add_task("train champions", total=len(moments) * growth.rounds, note="")
    time = pl.col(contract.event_time).cast(pl.Int64)
    full_ms = int(history.select(time.min()).item()) + longest_window_ms(declaration)
    models = {}
    for place, at_ms in enumerate(moments):
        window = Window(
            as_of_ms=at_ms, label_delay_ms=plan.label_delay_ms, warm_up_ms=0, holdout_share=_HOLDOUT, gap_ms=0
        )
        spec = TrainSpec(
            model=declaration.service.name, service=declaration.service, event_time=contract.event_time,
            group=contract.key, label=LABEL, window=window, growth=growth,
        )  # fmt: skip
        known = history.filter((time >= max(full_ms, at_ms - plan.history_ms)) & (time < at_ms))

        def show(grown: Any, place: int = place, at_ms: int = at_ms) -> None:
            note = f"{_day(at_ms // 86_400_000)}, validation AP {grown.best:.3f}"
            bar.update(task, completed=place * growth.rounds + grown.trees, note=note)

        models[at_ms] = TextModel(train(known, spec, at_ms, show).body, 1)
    bar.update(task, completed=len(moments) * growth.rounds)
    return models


def _served(models: Mapping[int, TextModel], moments: Sequence[int], times_ms: Any, matrix: Floats) -> Floats:
    """Return each event's score by the newest champion of its time, shape (n,)."""
    scores = np.full(len(times_ms), np.nan)
    for at_ms, until_ms in zip(moments, [*moments[1:], 1 << 62], strict=True):
        rows = np.flatnonzero((times_ms >= at_ms) & (times_ms < until_ms))
        if len(rows):
            scores[rows] = models[at_ms].predict(np.ascontiguousarray(matrix[rows].T))
    return scores


def _advance(bar: Progress, task: TaskID) -> Callable[[int], None]:
    return lambda done: bar.update(task, completed=done)


def _day(day: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).strftime("%Y-%m-%d")


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
    for day in next(iter(found["daily"].values())):
        values = (found["daily"][name][day].get(metric) for name in contenders)
        daily.add_row(_day(day), *("" if value is None else f"{value:.3f}" for value in values))
    console.print(daily)
    console.print(table)
