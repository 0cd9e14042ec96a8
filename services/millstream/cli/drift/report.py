"""``millstream drift report``: reference and current distributions, as a page."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from millstream.errors import Misconfigured
from millstream.settings import load_settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from millstream.core.drift.model_reference import ModelReference


def report(
    out: Annotated[Path, typer.Option(help="Where to write the page.")] = Path("drift.html"),
    last: Annotated[int, typer.Option(min=100, help="How many of the newest scored events.")] = 20_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as well.")] = False,
) -> None:
    """Compare the newest scored events with the champion's reference, on one HTML page with plots."""
    from millstream.adapters.embedded.endpoints import resolve
    from millstream.adapters.kafka.promotions import latest
    from millstream.adapters.reports.drift_page import Page, render
    from millstream.app.assembly import assemble
    from millstream.core.drift.compare import compare
    from millstream.core.drift.signals import described
    from millstream.core.models.manifest import Manifest

    if not out.parent.is_dir():  # checked before scored events are read, which takes a while
        raise Misconfigured(f"{out} cannot be written: there is no directory {out.parent}")
    settings, console = load_settings(), Console(stderr=True)
    kafka = resolve(settings, redis=False).kafka
    assembly = assemble(settings)
    name = assembly.declaration.service.name
    champion = latest(kafka, name)
    if champion is None:
        raise Misconfigured(f"no model {name!r} is promoted yet: `millstream train INPUT --promote`")
    reference = Manifest.from_json(champion.manifest).reference
    if reference is None:
        raise Misconfigured(f"version {champion.version} of {name!r} has no reference: train it again and promote it")
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
    _write(out, render(page, found, reference.edges))
    if as_json:
        for each in found:
            typer.echo(
                json.dumps({**asdict(each), "observed": each.observed.tolist(), "expected": each.expected.tolist()})
            )
    console.print(f"wrote [bold]{out}[/]: {len(found)} columns, {len(times_ms):,} events", highlight=False)


def _write(out: Path, page: str) -> None:
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise Misconfigured(f"{out} cannot be written: {error.strerror}") from error


def _newest_scored(
    kafka: dict[str, str], last: int, version: int, reference: ModelReference
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return times, features and scores of the newest events that a champion's version scored."""
    import numpy as np

    from millstream.adapters.kafka.schema_topic import schema_resolver
    from millstream.app.assembly import assemble
    from millstream.app.newest import newest
    from millstream.core.avro.decode import RecordReader
    from millstream.topology import SCORED

    assembly = assemble(load_settings())
    resolver = schema_resolver(assembly.settings, kafka, assembly.schemas)
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
