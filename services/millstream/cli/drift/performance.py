"""``millstream drift performance``: the champion's expected metric before labels arrive, and the realised one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from millstream.cli.screen import print_rows
from millstream.errors import Misconfigured
from millstream.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from millstream.core.drift.expected_metric import Cells
    from millstream.core.drift.slot_summary import Summary

_METRIC = "average_precision"


def performance(
    days: Annotated[int, typer.Option(min=1, help="How many of the newest days.")] = 14,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Estimate the champion's average precision from its calibrated scores, beside the one realised on labels.

    The estimate holds while scores are calibrated. Where the realised metric differs, that has changed.
    """
    from millstream.adapters.embedded.endpoints import resolve
    from millstream.adapters.kafka.client import read_committed
    from millstream.adapters.kafka.promotions import latest
    from millstream.app.assembly import assemble
    from millstream.app.quality_figures import maturities, read_figures, select
    from millstream.core.drift.slot_summary import Summary
    from millstream.core.models.manifest import Manifest
    from millstream.core.quality.scored_records import CHAMPION
    from millstream.topology import MEASURES

    settings, console = load_settings(), Console()
    kafka = resolve(settings, redis=False).kafka
    name = assemble(settings).declaration.service.name
    champion = latest(kafka, name)
    reference = None if champion is None else Manifest.from_json(champion.manifest).reference
    if champion is None or reference is None or reference.cells is None:
        raise Misconfigured(f"the champion of {name!r} has no reference: `millstream train INPUT --promote`")
    measures = (each.value() for part in read_committed(kafka, MEASURES, 0, 0, None) for each in part)
    expected = by_day((Summary.decode(each) for each in measures if each), champion.version, reference.cells)
    figures = read_figures(settings)
    there = maturities(figures, "delayed")
    realised = {
        each.day: each
        for each in (select(figures, "delayed", there[0]) if there else [])
        if (each.arm, each.metric, each.model_version) == (CHAMPION, _METRIC, champion.version) and not each.group
    }
    rows = []
    for day, (events, value) in sorted(expected.items())[-days:]:
        known = realised.get(day)
        row = {"day": day, "events": events, "expected": value, "realised": None, "lower": None, "upper": None}
        if known is not None:
            row |= {"realised": known.value, "lower": known.lower, "upper": known.upper}
        rows.append({**row, "state": "no labels" if known is None else "final" if known.mature else "open"})
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
        return
    if not rows:
        console.print("nothing is measured yet: `millstream run measure` counts scored events by hour")
        return
    shown = [{title: _cell(each) for title, each in row.items()} for row in rows]
    before = reference.cells.average_precision(reference.cells.events)
    print_rows(console, shown, f"{name} version {champion.version}: average precision by day; {before:.3f} in training")


def by_day(summaries: Iterable[Summary], version: int, cells: Cells) -> Mapping[str, tuple[int, float]]:
    """Return the events and the expected average precision of each day that a version scored."""
    import numpy as np

    from millstream.core.drift.slot_summary import SLOT_MS

    held: dict[str, NDArray[np.int64]] = {}
    for summary in summaries:
        for (scored_by, slot), block in summary.blocks.items():
            if scored_by == version:
                day = str(np.datetime64(slot * SLOT_MS, "ms").astype("datetime64[D]"))
                held[day] = held.get(day, 0) + block.cells
    return {day: (int(each.sum()), cells.average_precision(each)) for day, each in held.items()}


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
