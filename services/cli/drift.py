"""``millstream drift``: distributions then and now as a page, and what the monitors are worth."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.table import Table

from services.cli.screen import progress
from services.errors import Misconfigured
from services.settings import load_settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from services.core.drift.model_reference import ModelReference


def register(app: typer.Typer) -> None:
    """Add the commands."""
    drift = typer.Typer(help="Drift: a report of distributions then and now; a benchmark.", no_args_is_help=True)
    drift.command()(report)
    drift.command()(bench)
    app.add_typer(drift, name="drift")


def report(
    out: Annotated[Path, typer.Option(help="Where to write the page.")] = Path("drift.html"),
    last: Annotated[int, typer.Option(min=100, help="How many of the newest scored events.")] = 20_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as well.")] = False,
) -> None:
    """Compare the newest scored events with the champion's reference, on one HTML page with plots."""
    from services.adapters.drift_page import Page, render
    from services.adapters.endpoints import resolve
    from services.adapters.promotions import latest
    from services.cli.assembly import assemble
    from services.core.drift.compare import compare
    from services.core.drift.signals import described
    from services.core.manifest import Manifest

    settings, console = load_settings(), Console(stderr=True)
    kafka = resolve(settings).kafka
    assembly = assemble(settings)
    name = assembly.declaration.service.name
    champion = latest(kafka, name)
    if champion is None:
        raise Misconfigured(f"no model {name!r} is promoted yet: `millstream train INPUT --promote`")
    reference = Manifest.from_json(champion.manifest).reference
    if reference is None:
        raise Misconfigured(f"version {champion.version} of {name!r} has no reference: train it anew and promote it")
    with console.status("reading scored events"):
        times_ms, matrix, scores = _newest_scored(dict(kafka), last, champion.version, reference)
    if not len(times_ms):
        raise Misconfigured(f"none of the newest {last} scored events was scored by version {champion.version}")
    found = compare(reference.table(matrix, scores), times_ms, reference.binning())
    metric = None
    if reference.cells is not None and reference.calibration is not None:
        now = reference.cells.average_precision(reference.cells.count(reference.calibration(scores)))
        metric = ("average precision", reference.cells.average_precision(reference.cells.events), now)
    first, end = (_utc(each) for each in (times_ms.min(), times_ms.max()))
    title = f"Drift of {name}, version {champion.version}"
    page = Page(title, described(reference), f"{len(times_ms):,} events from {first} to {end} UTC", metric)
    out.write_text(render(page, found, reference.edges), encoding="utf-8")
    if as_json:
        for each in found:
            typer.echo(
                json.dumps({**asdict(each), "observed": each.observed.tolist(), "expected": each.expected.tolist()})
            )
    console.print(f"wrote [bold]{out}[/]: {len(found)} columns, {len(times_ms):,} events", highlight=False)


def _newest_scored(
    kafka: dict[str, str], last: int, version: int, reference: ModelReference
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return times, features and scores of the newest events that a champion's version scored."""
    import numpy as np

    from services.adapters.schema_topic import SchemaResolver, read_schemas
    from services.cli.assembly import assemble
    from services.cli.newest import newest
    from services.core.avro.decode import RecordReader
    from services.topology import SCORED

    assembly = assemble(load_settings())
    resolver = SchemaResolver(assembly.schemas, lambda: read_schemas(kafka), None)
    reader = RecordReader(assembly.topology.stages[-1].output_schema, resolver)
    values = [message.value() for _, message in newest(kafka, SCORED, last)]
    batch = reader.decode(values, 1 << 24).batch
    scores = batch.as_floats("champion_score")
    mine = ~np.isnan(scores) & (batch.as_floats("champion_version") == version)
    nothing = np.full(batch.length, np.nan)
    matrix = np.column_stack(
        [batch.as_floats(name) if name in batch.columns else nothing for name in reference.features]
    )
    return batch.columns[assembly.contract.event_time][mine], matrix[mine], scores[mine]


def _utc(ms: int) -> str:
    import numpy as np

    return str(np.datetime64(int(ms), "ms").astype("datetime64[m]")).replace("T", " ")


def bench(
    out: Annotated[Path | None, typer.Option(help="Write the results as JSON.")] = None,
    parts: Annotated[
        str, typer.Option(help="Some of streams, calm, power, cost; comma-separated.")
    ] = "streams,calm,power,cost",
    runs: Annotated[int, typer.Option(min=1, help="Streams and changes of each kind.")] = 10,
    years: Annotated[int, typer.Option(min=1, help="Drift-free years, each with a reference of its own.")] = 3,
) -> None:
    """Measure delays, misses and false alarms of the monitors, with the method and the yardsticks beside them."""
    known = {"streams": _streams, "calm": _calm, "power": _power, "cost": _cost}
    wanted = [each.strip() for each in parts.split(",") if each.strip()]
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise typer.BadParameter(f"there is no part {', '.join(unknown)}; there are: {', '.join(known)}")
    results: dict[str, Any] = {}
    console = Console()
    for each in wanted:
        results[each] = known[each](console, years if each == "calm" else runs)
    if out is not None:
        out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _bar(console: Console, title: str, total: int) -> Any:
    bar = progress(console, TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar.add_task(title, total=total)
    return bar


def _streams(console: Console, runs: int) -> list[dict[str, Any]]:
    from services.adapters.river_detectors import Adwin
    from services.core.drift.drift_streams import circles, sine1
    from services.core.drift.evaluation import CONTENDERS, Contender, table

    contenders = (*CONTENDERS, Contender("ADWIN", lambda x: Adwin(delta=1 / x), 500.0, 1.001, 1e30))
    shown = Table(
        title="published drift streams, 10 % label noise", caption="calibrated: one false alarm in 100,000 events on "
        "streams without drift; a Gaussian naive Bayes learner begins anew at each detection; delay in events"
    )  # fmt: skip
    for name in ("stream", "detector", "setting", "calibrated", "drifts", "missed", "false", "median delay"):
        shown.add_column(name)
    found = []
    with _bar(console, "drift streams", 2) as bar:
        for make in (sine1, circles):
            found += table(make, lambda seed, make=make: make(seed, every=10**9), contenders, 100_000, runs)  # type: ignore[misc]
            bar.advance(bar.task_ids[0])
    for each in found:
        shown.add_row(
            each.stream, each.detector, f"{each.setting:.4g}", "yes" if each.calibrated else "as it comes",
            str(each.drifts), str(each.missed), str(each.false), f"{each.median_delay:.0f}",
        )  # fmt: skip
    console.print(shown)
    return [asdict(each) for each in found]


def _calm(console: Console, years: int) -> dict[str, Any]:
    from services.adapters.monitors_file import load_monitors
    from services.core.drift.drill import World, calm

    monitors = load_monitors(load_settings().feature_repo)
    with _bar(console, "drift-free years", years) as bar:
        found = calm(World(), monitors, years, progress=lambda: bar.advance(bar.task_ids[0]))
    opened = sum(found.opened.values())
    console.print(
        f"[bold]{years} years without drift[/] (2,400 events a day, seasonal and bursty; each with eight weeks of "
        f"reference of its own): [bold]{opened}[/] false alarms, {found.allowed:.0f} allowed; by kind {found.opened}"
    )
    return asdict(found)


def _power(console: Console, runs: int) -> list[dict[str, Any]]:
    from services.adapters.monitors_file import load_monitors
    from services.core.drift.drill import Change, World, power

    monitors = load_monitors(load_settings().feature_repo)
    changes = [Change(0, shift_std=each) for each in (0.1, 0.25, 0.5)]
    changes += [Change(0, positive_ratio=each) for each in (1.25, 1.5, 2.0)]
    shown = Table(
        title="how soon a change is told, at the declared budget", caption="2,400 events a day, 2 % positive; changes "
        "begin at a random hour; labels known at once: add the label delay for positives"
    )  # fmt: skip
    for name in ("change", "told within 4 weeks", "median events", "median days"):
        shown.add_column(name)
    found = []
    with _bar(console, "changes", len(changes) * runs) as bar:
        for each in changes:
            found.append(power(World(), monitors, each, runs, progress=lambda: bar.advance(bar.task_ids[0])))
            last = found[-1]
            shown.add_row(
                last.change, f"{last.found} of {last.runs}", f"{last.median_events:,.0f}", f"{last.median_days:.1f}"
            )
    console.print(shown)
    return [asdict(each) for each in found]


def _cost(console: Console, _runs: int) -> dict[str, Any]:
    from services.core.drift.cost import measure

    found = measure(time.perf_counter)
    console.print(
        f"[bold]{found.events_per_s:,.0f} events/s[/] on one thread: all default monitors of {found.models} models on "
        f"{found.features} features, concept monitors included, {found.readings} slots judged"
    )
    return {**asdict(found), "events_per_s": found.events_per_s}
