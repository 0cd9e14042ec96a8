"""``millstream quality``: the quality of scores, on the labels that are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from millstream.cli.screen import humane, print_rows
from millstream.settings import load_settings

if TYPE_CHECKING:
    from millstream.app.quality_figures import QualityRecord

_HEADLINES = (
    *("average_precision", "auc", "precision", "recall", "card_precision", "log_loss", "brier"),
    *("calibration_error", "selection_rate"),
)
_SHORT = {
    "average_precision": "AP",
    "auc": "AUC",
    "card_precision": "precision@k",
    "log_loss": "log-loss",
    "brier": "Brier",
    "calibration_error": "ECE",
    "selection_rate": "selected",
}


_SHOWN_RESOLUTION = 0.0005
"""From which on the resolution of a figure shows in its last digit."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(quality)


def quality(
    maturity: Annotated[
        int | None, typer.Option(help="Count labels known within so many days of their events; default: the least.")
    ] = None,
    days: Annotated[int, typer.Option(min=0, help="How many of the newest days to list.")] = 14,
    prequential: Annotated[
        bool, typer.Option("--prequential", help="By day on which labels became known, not by day of the event.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Every figure, one JSON object a line.")] = False,
    png: Annotated[Path | None, typer.Option(help="Plot figures by day into this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="The same plot, and the figures, as a page.")] = None,
) -> None:
    """Show the quality of each model's scores by day, with days that are not mature marked."""
    from millstream.app.quality_figures import maturities, read_figures, select
    from millstream.errors import Misconfigured

    console = Console()
    figures = read_figures(load_settings())
    if as_json:
        for each in figures:
            typer.echo(json.dumps(each.as_json()))
        return
    protocol = "prequential" if prequential else "delayed"
    there = maturities(figures, protocol)
    if not there:
        console.print(
            "no figures yet: they come with labels, from the stages `join` and `quality` (`millstream run`), and are "
            "published at checkpoints"
        )
        return
    if maturity is not None and maturity not in there:
        raise Misconfigured(f"labels are counted at {', '.join(map(str, there))} days, not at {maturity}")
    age = there[0] if maturity is None else maturity
    shown = select(figures, protocol, age)
    if png is not None or html is not None:
        from millstream.app.quality_plot import page, picture

        if png is not None:
            png.write_bytes(picture(shown, "png"))
        if html is not None:
            html.write_text(page(shown))
    _tables(console, shown, days)
    for path in (png, html):
        if path is not None:
            console.print(f"written: {path}")


def _tables(console: Console, shown: Sequence[QualityRecord], days: int) -> None:
    first = shown[0]
    as_of = humane("as_of_time_ms", max(each.as_of_ms for each in shown))[:16]
    known = f"labels known within {first.maturity_days} days of their events"
    if first.protocol == "prequential":
        known = f"by day of the label, {known}"
    known = f"{known}; as of {as_of} UTC"
    overall = [each for each in shown if not each.group_column]
    pooled = _rows([each for each in overall if each.day_start_ms is None], [])
    if pooled:
        which = "All days that are over" if first.protocol == "prequential" else "All mature days"
        print_rows(console, pooled, f"{which}, {known}")
    else:
        console.print(f"no day is mature yet ({known}): all figures below may still change")
    listed = sorted({each.day for each in overall if each.day})[-days:] if days else []
    by_day = _rows([each for each in overall if each.day in listed], ["day", "state"])
    if by_day:
        print_rows(console, by_day, "By day, with 95 % intervals; an open day is not final")
    groups = _group_rows([each for each in shown if each.group_column and each.day_start_ms is None])
    if groups:
        print_rows(console, groups, f"By {groups[0]['group'].partition('=')[0]}, all mature days")


def _rows(figures: Sequence[QualityRecord], names: Sequence[str]) -> list[dict[str, str]]:
    """Return one row per day and series, with a column per headline metric."""
    cells: dict[tuple[str, tuple[int, str, int]], dict[str, QualityRecord]] = {}
    for each in figures:
        cells.setdefault((each.day, each.who), {})[_kind(each.metric)] = each
    made = []
    for _, metrics in sorted(cells.items()):
        one = next(iter(metrics.values()))
        row = {"day": one.day, "state": "final" if one.mature else "open"} if names else {}
        row |= {"arm": one.arm, "model": _model(one)}
        row |= {"examples": f"{one.examples:,}", "positive": f"{one.positives:,}"}
        row["labelled"] = "" if one.coverage is None else f"{one.coverage:.1%}"
        for metric in _HEADLINES[:6] if names else _HEADLINES:
            row[_SHORT.get(metric, metric)] = _cell(metrics.get(metric))
        made.append(row)
    return made


def _group_rows(figures: Sequence[QualityRecord]) -> list[dict[str, str]]:
    made = []
    for who in sorted({each.who for each in figures}):
        mine = [each for each in figures if each.who == who]
        for group in sorted({each.group for each in mine}, key=lambda name: (name == "*", name)):
            metrics = {_kind(each.metric.removesuffix("_gap")): each for each in mine if each.group == group}
            one = next(iter(metrics.values()))
            name = "gap" if group == "*" else group
            row = {"group": f"{one.group_column}={name}", "arm": one.arm, "model": _model(one)}
            row |= {"examples": f"{one.examples:,}"}
            for metric in ("recall", "precision", "selection_rate", "average_precision", "base_rate"):
                row[_SHORT.get(metric, metric)] = _cell(metrics.get(metric))
            made.append(row)
    return made


def _kind(metric: str) -> str:
    return "card_precision" if metric.startswith("card_precision_at_") else metric


def _model(one: QualityRecord) -> str:
    return f"{one.model} {one.model_version}" if one.model_version else one.model


def _cell(one: QualityRecord | None) -> str:
    if one is None or one.value is None:
        return ""
    value = f"{one.value:.3f}"
    if (one.resolution or 0.0) >= _SHOWN_RESOLUTION:
        value += f"±{one.resolution:.3f}"
    if one.lower is None or one.upper is None:
        return value
    return f"{value} {_end(one.lower)}-{_end(one.upper)}"


def _end(value: float) -> str:
    """Return an end of an interval in few characters.

    Examples
    --------
    >>> _end(0.125), _end(1.0)
    ('.12', '1.0')
    """
    return f"{value:.2f}"[1:] if value < 0.995 else f"{value:.1f}"
