"""``millstream drift bench``: what the monitors are worth, with the yardsticks beside them."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.table import Table

from services.cli.screen import progress
from services.settings import load_settings

if TYPE_CHECKING:
    from services.core.drift.declared import Monitors


def bench(
    out: Annotated[Path | None, typer.Option(help="Write the results as JSON.")] = None,
    parts: Annotated[
        str, typer.Option(help="Some of indices, streams, meaning, calm, power, cost; comma-separated.")
    ] = "indices,streams,meaning,calm,power,cost",
    runs: Annotated[int, typer.Option(min=1, help="Streams and changes of each kind.")] = 10,
    years: Annotated[int, typer.Option(min=1, help="Drift-free years, each with a reference of its own.")] = 3,
    false_alarms: Annotated[
        str, typer.Option(help="The budget, e.g. '1 per week'; default: as feature_repo/monitors.toml declares it.")
    ] = "",
) -> None:
    """Measure delays, misses and false alarms of the monitors, with the method and the yardsticks beside them."""
    known = {
        "indices": _indices,
        "streams": _streams,
        "meaning": _meaning,
        "calm": _calm,
        "power": _power,
        "cost": _cost,
    }
    wanted = [each.strip() for each in parts.split(",") if each.strip()]
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise typer.BadParameter(f"there is no part {', '.join(unknown)}; there are: {', '.join(known)}")
    console, monitors = Console(), _monitors(false_alarms)
    budget = monitors.budget
    console.print(f"false-alarm budget: {budget.alarms:g} in {budget.days:g} days", highlight=False)
    results: dict[str, Any] = {"alarms": budget.alarms, "days": budget.days}
    for each in wanted:
        results[each] = known[each](console, monitors, years if each == "calm" else runs)
    if out is not None:
        out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _monitors(false_alarms: str) -> Monitors:
    from services.adapters.monitors_file import load_monitors
    from services.core.drift.declared import parse_budget

    monitors = load_monitors(load_settings().feature_repo)
    try:
        return replace(monitors, budget=parse_budget(false_alarms)) if false_alarms else monitors
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--false-alarms") from error


def _bar(console: Console, title: str, total: int) -> Any:
    bar = progress(console, TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar.add_task(title, total=total)
    return bar


def _indices(console: Console, _declared: Monitors, _runs: int) -> list[dict[str, Any]]:
    from services.adapters.river_documented import DOCUMENTED

    shown = Table(title="the examples of River's documentation, through the detectors used here")
    for name in ("detector", "drift at, documented", "here", "first warning, documented", "here"):
        shown.add_column(name)
    found = []
    for each in DOCUMENTED:
        detections = each.make().update_many(each.stream())
        drifts, warned = detections.rows.tolist(), detections.warnings[:1].tolist()
        first = "" if each.first_warning is None else str(each.first_warning)
        shown.add_row(
            each.name, ", ".join(map(str, each.drifts)), ", ".join(map(str, drifts)), first, "".join(map(str, warned))
        )
        found.append({"detector": each.name, "documented": each.drifts, "found": drifts, "warned": warned})
    console.print(shown)
    return found


def _meaning(console: Console, monitors: Monitors, runs: int) -> list[dict[str, Any]]:
    from services.core.drift.drill import meaning
    from services.core.drift.drill_traffic import World

    with _bar(console, "covariate or concept", 2 * runs) as bar:
        found = meaning(World(), monitors, runs, progress=lambda: bar.advance(bar.task_ids[0]))
    shown = Table(title="covariate shift or concept change", caption="runs in which an incident of the kind opened")
    kinds = "data", "score", "concept", "score online", "concept online"
    for name in ("change", "runs", *kinds):
        shown.add_column(name)
    for each in found:
        opened = [str(each.opened.get(kind, 0)) for kind in kinds]
        shown.add_row(each.change, str(each.runs), *opened)
    console.print(shown)
    return [asdict(each) for each in found]


def _streams(console: Console, _declared: Monitors, runs: int) -> list[dict[str, Any]]:
    from services.adapters.river_detectors import Adwin
    from services.core.drift.drift_streams import circles, sine1
    from services.core.drift.evaluation import CONTENDERS, VALUE_CONTENDERS, Contender, levels_table, table

    adwin = Contender("ADWIN", lambda x: Adwin(delta=1 / x), 500.0, 1.001, 1e30)
    contenders = (*CONTENDERS, adwin)
    shown = Table(
        title="published drift streams", caption="calibrated: one false alarm in 100,000 events on "
        "streams without drift; SINE1 and CIRCLES: 10 % label noise, errors of a Gaussian naive Bayes learner that "
        "begins anew at each detection; two levels: the values themselves; delay in events"
    )  # fmt: skip
    for name in ("stream", "detector", "setting", "calibrated", "drifts", "missed", "false", "median delay"):
        shown.add_column(name)
    found = []
    with _bar(console, "drift streams", 3) as bar:
        for make in (sine1, circles):
            found += table(make, partial(make, every=10**9), contenders, 100_000, runs)
            bar.advance(bar.task_ids[0])
        found += levels_table((*VALUE_CONTENDERS, adwin), 100_000, runs)
        bar.advance(bar.task_ids[0])
    for each in found:
        shown.add_row(
            each.stream, each.detector, f"{each.setting:.4g}", "yes" if each.calibrated else "as it comes",
            str(each.drifts), str(each.missed), str(each.false), f"{each.median_delay:.0f}",
        )  # fmt: skip
    console.print(shown)
    return [asdict(each) for each in found]


def _calm(console: Console, monitors: Monitors, years: int) -> dict[str, Any]:
    from services.core.drift.drill import calm
    from services.core.drift.drill_traffic import World

    with _bar(console, "drift-free years", years) as bar:
        found = calm(World(), monitors, years, progress=lambda: bar.advance(bar.task_ids[0]))
    opened = sum(found.opened.values())
    console.print(
        f"[bold]{years} years without drift[/] (2,400 events a day, seasonal and bursty; each with eight weeks of "
        f"reference of its own): [bold]{opened}[/] false alarms, {found.allowed:.0f} allowed; by kind {found.opened}"
    )
    return asdict(found)


def _power(console: Console, monitors: Monitors, runs: int) -> list[dict[str, Any]]:
    from services.core.drift.drill import power
    from services.core.drift.drill_traffic import Change, World

    changes = [Change(0, shift_std=each) for each in (0.1, 0.25, 0.5)]
    changes += [Change(0, positive_ratio=each) for each in (1.25, 1.5, 2.0)]
    changes += [Change(0, online_logit=each) for each in (0.25, 1.0)]
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


def _cost(console: Console, _declared: Monitors, _runs: int) -> dict[str, Any]:
    from services.core.drift.cost import measure

    found = measure(time.perf_counter)
    console.print(
        f"[bold]{found.events_per_s:,.0f} events/s[/] on one thread: all default monitors of {found.models} models on "
        f"{found.features} features, concept monitors included, {found.readings} slots judged"
    )
    return {**asdict(found), "events_per_s": found.events_per_s}
