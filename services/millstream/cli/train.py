"""``millstream train``: replayed features and labels in, a registered model out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from millstream.app import durations
from millstream.cli.file_options import Encoding, Quote, Separator, TimeUnit, TimeZone, TruncateTimes, declared_by
from millstream.cli.models import metric_title
from millstream.cli.replay import day_ms
from millstream.cli.screen import progress
from millstream.errors import Misconfigured
from millstream.settings import Settings, load_settings

if TYPE_CHECKING:
    import polars as pl

    from millstream.app.assembly import Assembly
    from millstream.app.training import Model
    from millstream.core.drift.model_reference import ModelReference
    from millstream.stages.retrain.fit import Progress as Grown
    from millstream.stages.retrain.train import TrainedModel


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(train)


def duration_ms(text: str) -> int:
    """Return an option's duration in milliseconds; a wrong one is wrong usage."""
    try:
        return durations.duration_ms(text)
    except Misconfigured as error:
        raise typer.BadParameter(str(error)) from error


def duration(text: str) -> str:
    """Return an option's duration as it is, once it is known to be one."""
    duration_ms(text)
    return text


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
    promote: Annotated[bool, typer.Option("--promote", help="Make it the champion.")] = False,
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
    from millstream.app.training import TrainOptions
    from millstream.app.training import train as train_model
    from millstream.app.training_data import read_features

    settings, console = load_settings(), Console()
    kafka = resolve(settings, redis=False).kafka if promote else None  # rather fail now than after the work
    assembly = assemble(settings)
    options = TrainOptions(
        label_column=label,
        start_ms=day_ms(start) if start else None,
        end_ms=day_ms(end) if end else None,
        as_of_ms=day_ms(as_of) if as_of else None,
        label_delay=duration(label_delay),
        warm_up=duration(warm_up) if warm_up else None,
        gap=duration(gap) if gap else None,
        validation=validation,
        holdout=holdout,
        threshold=threshold,
        rounds=rounds,
        leaves=leaves,
        seed=seed,
    )
    declared = declared_by(separator, quote, encoding, False, time_unit, time_zone, truncate_times)

    def warn(sentence: str) -> None:
        console.print(f"[yellow]{escape(sentence)}[/]", soft_wrap=True)

    features = read_features(source)
    with _bar(console, features.height, rounds) as show:
        made = train_model(assembly, features, labels, options, declared, warn, show)
    _print_model(made, assembly, console)
    if kafka is None:
        console.print(f"Serve it with `millstream models promote {made.version}`.")
    else:
        _promote(assembly, kafka, made, console)


def train_and_promote(
    settings: Settings,
    assembly: Assembly,
    kafka: Mapping[str, str],
    features: pl.DataFrame,
    label: str,
    console: Console,
) -> Model:
    """Train with the defaults, register the model and make it champion; raises what each of these does."""
    from millstream.app.training import train_and_register

    with _bar(console, features.height, None) as show:
        made = train_and_register(assembly, features, label, progress=show)
    _print_model(made, assembly, console)
    _promote(assembly, kafka, made, console)
    return made


@contextmanager
def _bar(console: Console, events: int, rounds: int | None) -> Iterator[Callable[[Grown], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("trees {task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with progress(console, *columns) as bar:
        task = bar.add_task(f"train on {events:,} events", total=rounds, note="")

        def show(grown: Grown) -> None:
            bar.update(task, completed=grown.trees, note=f"validation AP {grown.best:.4f}")

        yield show


def _print_model(made: Model, assembly: Assembly, console: Console) -> None:
    _report(made.trained, assembly.contract.key, console)
    console.print(f"model [bold]{made.name}[/] version [bold]{made.version}[/] is registered")


def _report(trained: TrainedModel, group: str, console: Console) -> None:
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


def _promote(assembly: Assembly, kafka: Mapping[str, str], made: Model, console: Console) -> None:
    from millstream.app.training import promote

    promote(assembly, kafka, made.version)
    console.print(f"model [bold]{made.name}[/] version [bold]{made.version}[/] is champion")
