"""``millstream train``: replayed features and labels in, a registered model out."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from millstream.app import durations
from millstream.app.training_data import DEFAULT_LABEL
from millstream.cli.file_options import Encoding, Quote, Separator, TimeUnit, TimeZone, TruncateTimes, declared_by
from millstream.cli.models import metric_title, put_into_service
from millstream.cli.replay import day_ms
from millstream.cli.screen import progress
from millstream.errors import Misconfigured
from millstream.settings import Settings, load_settings

if TYPE_CHECKING:
    import polars as pl

    from millstream.app.assembly import Assembly
    from millstream.core.declaration import Declaration
    from millstream.core.drift.model_reference import ModelReference
    from millstream.ports import ModelVersion
    from millstream.stages.retrain.fit import Growth
    from millstream.stages.retrain.fit import Progress as Grown
    from millstream.stages.retrain.split import Window
    from millstream.stages.retrain.train import Trained, TrainSpec

_DAY_MS = 86_400_000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(train)


def duration_ms(text: str) -> int:
    """Return an option's duration in milliseconds; a wrong one is wrong usage."""
    try:
        return durations.duration_ms(text)
    except Misconfigured as error:
        raise typer.BadParameter(str(error)) from error


def train(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="What `millstream replay` wrote.")],
    labels: Annotated[Path | None, typer.Option(help="File of labels by event id; default: in INPUT.")] = None,
    label: Annotated[str | None, typer.Option("--label-column", help="Default: the service's tag 'label'.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="First event time (ISO, UTC).")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Event time to stop before (ISO, UTC).")] = None,
    as_of: Annotated[str | None, typer.Option(help="Use no label known later (ISO, UTC); default: the end.")] = None,
    label_delay: Annotated[str, typer.Option(help="How long after an event its label is known.")] = "7d",
    warm_up: Annotated[str | None, typer.Option(help="Leave out this long; default: the longest window.")] = None,
    gap: Annotated[str | None, typer.Option(help="Between validation and holdout; default: the label delay.")] = None,
    validation: Annotated[float, typer.Option(min=0.01, max=0.5, help="Share of time for early stopping.")] = 0.1,
    holdout: Annotated[float, typer.Option(min=0.01, max=0.5, help="Share of time for the metrics.")] = 0.1,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help="Default: the best F1 on validation.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Most trees.")] = 200,
    leaves: Annotated[int, typer.Option(min=2, help="Leaves per tree.")] = 31,
    seed: Annotated[int, typer.Option(help="Same seed, same trees.")] = 0,
    promote: Annotated[bool, typer.Option("--promote", help="Make it champion and tell every scorer.")] = False,
    separator: Separator = None,
    quote: Quote = '"',
    encoding: Encoding = "utf-8",
    time_unit: TimeUnit = None,
    time_zone: TimeZone = None,
    truncate_times: TruncateTimes = False,
) -> None:
    """Train a model on history as it was known at the time, measure it, and register it."""
    from millstream.adapters.embedded.endpoints import resolve
    from millstream.app.assembly import assemble
    from millstream.app.label_policy import label_precedence
    from millstream.app.training_data import labels_of, read_features, with_event_times, with_labels
    from millstream.stages.retrain.fit import Growth
    from millstream.stages.retrain.split import Window

    settings, console = load_settings(), Console()
    kafka = resolve(settings, redis=False).kafka if promote else None  # rather fail now than after the work
    assembly = assemble(settings)
    service, contract = assembly.declaration.service, assembly.contract
    column, label = label, label or service.tags.get("label", DEFAULT_LABEL)
    as_of_ms = day_ms(as_of) if as_of else None
    features = with_event_times(read_features(source), contract.event_time)
    if labels is not None:
        declared = declared_by(separator, quote, encoding, False, time_unit, time_zone, truncate_times)
        given = labels_of(labels, contract.schema[contract.event_id], column, label, declared)

        def warn(sentence: str) -> None:
            console.print(f"[yellow]{escape(sentence)}[/]", soft_wrap=True)

        precedence = label_precedence(settings)
        within = contract.event_time, settings.label_horizon_days * _DAY_MS
        features = with_labels(features, given, contract.event_id, label, as_of_ms, precedence, warn, within)
    window = Window(
        from_ms=day_ms(start) if start else None,
        to_ms=day_ms(end) if end else None,
        as_of_ms=as_of_ms,
        label_delay_ms=duration_ms(label_delay),
        warm_up_ms=duration_ms(warm_up) if warm_up else longest_window_ms(assembly.declaration),
        validation_share=validation,
        holdout_share=holdout,
        gap_ms=duration_ms(gap) if gap else None,
    )
    growth = Growth(rounds=rounds, leaves=leaves, seed=seed, threads=os.cpu_count() or 1)
    made = train_and_register(settings, assembly, features, label, console, window, growth, threshold)
    if kafka is None:
        console.print(f"Serve it with `millstream models promote {made.version}`.")
    else:
        _promote(settings, assembly, kafka, made, console)


def train_and_promote(
    settings: Settings,
    assembly: Assembly,
    kafka: Mapping[str, str],
    features: pl.DataFrame,
    label: str,
    console: Console,
    window: Window | None = None,
) -> ModelVersion:
    """Train with the defaults, register the model and make it champion; raises what each of these does."""
    made = train_and_register(settings, assembly, features, label, console, window)
    _promote(settings, assembly, kafka, made, console)
    return made


def train_and_register(
    settings: Settings,
    assembly: Assembly,
    features: pl.DataFrame,
    label: str,
    console: Console,
    window: Window | None = None,
    growth: Growth | None = None,
    threshold: float | None = None,
) -> ModelVersion:
    """Train on replayed features, show a bar and the metrics, and register the model under the service's name.

    Parameters
    ----------
    features : DataFrame
        A row per event: event time, message key, the service's features, the label and, if there is a column of that
        name, the time the label became known (`millstream.app.training_data.KNOWN_AT`).
    label : str
        Column of 0 and 1, or boolean; null where there is no label.
    window : Window, optional
        Default: all of it, less the longest window as warm-up.

    Raises
    ------
    Misconfigured
        The data cannot be learnt from; says why.
    Retry
        The registry cannot be reached.
    """
    from millstream.adapters.models.registry import open_registry
    from millstream.app.training_data import KNOWN_AT
    from millstream.core.models.manifest import define
    from millstream.stages.retrain.fit import Growth
    from millstream.stages.retrain.split import Window
    from millstream.stages.retrain.train import TrainSpec

    declaration, contract = assembly.declaration, assembly.contract
    spec = TrainSpec(
        model=declaration.service.name,
        service=declaration.service,
        event_time=contract.event_time,
        group=contract.key,
        label=label,
        label_known_at=KNOWN_AT if KNOWN_AT in features.columns else None,
        window=window or Window(warm_up_ms=longest_window_ms(declaration)),
        growth=growth or Growth(threads=os.cpu_count() or 1),
        threshold=threshold,
        definitions=define(declaration),
        git_commit=_commit(settings.feature_repo),
        monitors=assembly.monitors,
    )
    trained = _with_bar(features, spec, console)
    _report(trained, contract.key, console)
    manifest = trained.manifest.to_json()
    with console.status("registering the model"):
        made = open_registry(settings).register(spec.model, manifest, trained.body, trained.metrics)
    console.print(f"model [bold]{made.name}[/] version [bold]{made.version}[/] is registered")
    return made


def longest_window_ms(declaration: Declaration) -> int:
    """Return the longest window among the features the service reads: before it has passed, they are not full."""
    read = {name for name, _ in declaration.service.features}
    return max(
        (
            aggregate.window_ms
            for view in declaration.views
            for column, aggregate in zip(view.columns, view.aggregates, strict=True)
            if column in read
        ),
        default=0,
    )


def _with_bar(features: pl.DataFrame, spec: TrainSpec, console: Console) -> Trained:
    from millstream.stages.retrain.train import train as fit

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("trees {task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with progress(console, *columns) as bar:
        task = bar.add_task(f"train on {features.height:,} events", total=spec.growth.rounds, note="")

        def show(grown: Grown) -> None:
            bar.update(task, completed=grown.trees, note=f"validation AP {grown.best:.4f}")

        return fit(features, spec, time.time_ns() // 1_000_000, show)


def _report(trained: Trained, group: str, console: Console) -> None:
    rows, positives = trained.manifest.training.rows, trained.manifest.training.positives
    sizes = ", ".join(f"{part} {rows[part]:,} ({positives[part]:,} positive)" for part in rows)
    console.print(f"  {trained.manifest.params['trees']} trees; events: {sizes}", soft_wrap=True)
    titles = {name: metric_title(name, group, trained.groups_a_day) for name in trained.metrics}
    measured = ", ".join(f"{titles[name]} [bold]{value:.4f}[/]" for name, value in trained.metrics.items())
    console.print(f"  on the holdout part: {measured}", soft_wrap=True)
    reference = trained.manifest.reference
    if reference is not None and reference.thresholds:
        rarely = " (extrapolated: rarer than it can show)" if reference.extrapolated else ""
        console.print(
            f"  drift: {len(reference.thresholds)} monitors, calibrated on {reference.days} days to one false alarm "
            f"in {1 / reference.alarms_per_day:g} days{rarely}",
            soft_wrap=True,
        )
        if reference.held_out_days:
            console.print(
                f"  drift: thresholds of the earlier weeks gave {reference.held_out_alarms:g} false alarms in the "
                f"{reference.held_out_days:.0f} days held out, of {_budgeted(reference):.1f} budgeted",
                soft_wrap=True,
            )
    elif reference is not None:
        console.print(f"  [yellow]drift: distributions are not watched: {reference.note}[/]", soft_wrap=True)


def _budgeted(reference: ModelReference) -> float:
    """Return how many alarms about distributions the budget allows in the days held out."""
    from millstream.core.drift.declared import WINDOWED_SHARE

    return reference.held_out_days * reference.alarms_per_day * WINDOWED_SHARE


def _promote(
    settings: Settings, assembly: Assembly, kafka: Mapping[str, str], made: ModelVersion, console: Console
) -> None:
    from millstream.adapters.models.registry import open_registry

    put_into_service(open_registry(settings), kafka, assembly.declaration, made.name, made.version)
    console.print(f"model [bold]{made.name}[/] version [bold]{made.version}[/] is champion")


def _commit(folder: Path) -> str | None:
    """Return the commit of the feature repo, marked if it has changes; None if it is not under git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except FileNotFoundError:
        return None
    return asked.stdout.strip() or None
