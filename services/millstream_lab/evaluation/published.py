"""The published experiment on our own features: the same parts, the same metrics, our model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import typer
from rich.console import Console
from rich.table import Table

from millstream.adapters.models.lightgbm_model import TextModel
from millstream.app.assembly import Assembly, assemble
from millstream.cli.models import metric_title
from millstream.cli.replay import progress_bar
from millstream.core.batch import Mask
from millstream.core.metrics import evaluate
from millstream.settings import Settings
from millstream.stages.retrain.fit import Growth, Progress, fit
from millstream.stages.retrain.train import binary_labels
from millstream_lab.evaluation.book import METRICS, PROTOCOL, PUBLISHED, SIZES
from millstream_lab.evaluation.choose import Choice, choose
from millstream_lab.evaluation.plot import bars_png
from millstream_lab.evaluation.protocol import Protocol, parts
from millstream_lab.evaluation.reference import LABEL, reference_history

FOLDS = 4
ROUNDS = 300
LEAVES = (7, 15, 31)
BINS = (255, 4095)
OURS = "LightGBM"


def run_book(settings: Settings, console: Console, fresh: bool, picture: Path | None, as_json: bool) -> bool:
    """Run the experiment, show it, and return whether it is the published one and no worse.

    Raises
    ------
    Misconfigured, Stop
        Saying what does not fit.
    """
    assembly = assemble(settings)
    found = experiment(assembly, reference_history(assembly, console, fresh), PROTOCOL, console)
    goal = PUBLISHED["random forest"]
    same = all(tuple(found["sizes"][name]) == size for name, size in SIZES.items())
    reached = all(round(found["metrics"][name], 3) >= least for name, least in goal.items())
    found |= {"published": PUBLISHED, "sizes_as_published": same, "at_least_the_random_forest": reached}
    _show(found, assembly.contract.key, console)
    if picture is not None:
        rows = {**{f"{name}, published": each for name, each in PUBLISHED.items()}, _ours(found): found["metrics"]}
        titles = {name: metric_title(name, assembly.contract.key) for name in METRICS}
        picture.write_bytes(bars_png(rows, titles, "Trained on 25-31 July, tested on 8-14 August 2018"))
        console.print(f"drew {picture}", soft_wrap=True)
    if as_json:
        typer.echo(json.dumps(found))
    return same and reached


def experiment(assembly: Assembly, history: pl.DataFrame, protocol: Protocol, console: Console) -> dict[str, Any]:
    """Choose how trees are grown on earlier weeks, grow them on the training part, and measure on the test part.

    Parameters
    ----------
    history : DataFrame
        A row per event: event time, message key, the service's features, the label.

    Returns
    -------
    dict
        ``sizes`` (events and positives of each part), ``metrics`` of the test part, how the model was ``chosen``.
    """
    contract, names = assembly.contract, [name for name, _ in assembly.declaration.service.features]
    folds = protocol.known_before_training(FOLDS)
    time = pl.col(contract.event_time).cast(pl.Int64)
    # what lies outside of all parts is not even looked at
    history = history.filter((time >= folds[-1].train_from_ms) & (time < protocol.test_to_ms))
    times_ms = history[contract.event_time].cast(pl.Int64).to_numpy()
    labels, groups = binary_labels(history[LABEL]).to_numpy(), history[contract.key].to_numpy()
    matrix = history.select(pl.col(names).cast(pl.Float64).fill_null(float("nan"))).to_numpy()
    train, test = parts(times_ms, labels, groups, protocol)
    choice = _chosen(names, matrix, labels, [parts(times_ms, labels, groups, fold) for fold in folds], console)
    body = fit(names, matrix, labels, train, None, choice.growth).body
    scores = TextModel(body, 1).predict(np.ascontiguousarray(matrix[test].T))
    sizes = {name: (int(mask.sum()), int(labels[mask].sum())) for name, mask in (("train", train), ("test", test))}
    growth = choice.growth
    return {
        "sizes": sizes,
        "metrics": evaluate(labels[test], scores, groups[test], times_ms[test]),
        "features": names,
        "chosen": {
            "trees": growth.rounds,
            "leaves": growth.leaves,
            "bins": growth.bins,
            "learning_rate": growth.learning_rate,
        },
        "average_precision_of_earlier_weeks": choice.average_precision,
        "average_precision_by_growth": {words(each): reached for each, reached in choice.tried},
    }


def _chosen(
    names: list[str],
    matrix: np.ndarray[Any, np.dtype[np.float64]],
    labels: Mask,
    folds: list[tuple[Mask, Mask]],
    console: Console,
) -> Choice:
    threads = os.cpu_count() or 1
    candidates = [
        Growth(rounds=ROUNDS, leaves=leaves, learning_rate=0.05, min_rows_in_leaf=20, bins=bins, threads=threads)
        for bins in BINS
        for leaves in LEAVES
    ]
    with progress_bar(console) as bar:
        task = bar.add_task("grow trees on earlier weeks", total=len(candidates) * FOLDS * ROUNDS, note="")

        def show(candidate: int, fold: int, grown: Progress) -> None:
            done = (candidate * FOLDS + fold) * ROUNDS + grown.trees
            bar.update(task, completed=done, note=f"{words(candidates[candidate])}, AP {grown.best:.3f}")

        return choose(names, matrix, labels, folds, candidates, show)


def words(growth: Growth) -> str:
    """Return what is tried, in words."""
    return f"{growth.leaves} leaves, {growth.bins} bins"


def _ours(found: dict[str, Any]) -> str:
    return f"{OURS}, {len(found['features'])} replayed features"


def _show(found: dict[str, Any], key: str, console: Console) -> None:
    table = Table(title="The Fraud Detection Handbook's experiment", title_justify="left")
    table.add_column("")
    for name in METRICS:
        table.add_column(metric_title(name, key), justify="right")
    for name, each in PUBLISHED.items():
        table.add_row(f"{name}, published", *(f"{each[metric]:.3f}" for metric in METRICS))
    table.add_row(_ours(found), *(f"[bold]{found['metrics'][metric]:.3f}[/]" for metric in METRICS))
    console.print(table)
    for name, (events, positives) in found["sizes"].items():
        published = SIZES[name]
        same = "as published" if (events, positives) == published else f"[red]published: {published}[/]"
        console.print(f"  {name}: {events:,} events, {positives:,} frauds, {same}", highlight=False)
    chosen = found["chosen"]
    console.print(
        f"  {chosen['trees']} trees of {chosen['leaves']} leaves and {chosen['bins']} bins, best on the {FOLDS} weeks "
        f"before (average precision {found['average_precision_of_earlier_weeks']:.3f}); the test week was not looked "
        "at",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    tried = "; ".join(f"{name}: {reached:.3f}" for name, reached in found["average_precision_by_growth"].items())
    console.print(f"  there, {tried}", highlight=False, soft_wrap=True)
    if not found["at_least_the_random_forest"]:
        console.print("[red]below the published random forest[/]")
