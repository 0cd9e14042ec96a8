"""``millstream features seed``: live windows from history, before the first event is consumed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from millstream.cli.file_options import (
    DecimalComma,
    Encoding,
    Quote,
    Separator,
    TimeUnit,
    TimeZone,
    TruncateTimes,
    declared_by,
    mapping_of,
)
from millstream.errors import Misconfigured
from millstream.settings import load_settings


def seed(
    source: Annotated[Path, typer.Argument(help="Parquet, CSV or JSON lines; past events in order of time.")],
    start: Annotated[str | None, typer.Option("--from", help="First event time (ISO, UTC).")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Event time to stop before (ISO, UTC).")] = None,
    mapping: Annotated[list[str] | None, typer.Option("--map", help="COLUMN=FIELD, if names differ.")] = None,
    label: Annotated[
        str | None, typer.Option("--label-column", help="For features made of labels; none: as if nothing was known.")
    ] = None,
    label_delay: Annotated[
        str, typer.Option(help="How long after an event its label is known, where it has no known_at_ms.")
    ] = "7d",
    labels: Annotated[
        Path | None, typer.Option(help="File of labels by event id; default: a column of SOURCE.")
    ] = None,
    separator: Separator = None,
    quote: Quote = '"',
    encoding: Encoding = "utf-8",
    decimal_comma: DecimalComma = False,
    time_unit: TimeUnit = None,
    time_zone: TimeZone = None,
    truncate_times: TruncateTimes = False,
) -> None:
    """Fill the live windows from history, so that the first live event has full windows.

    Stages must be stopped and must not have consumed anything yet. Nothing is published: there are no predictions of
    past events. Safe to repeat until the stages have started.
    """
    from millstream.adapters.embedded.endpoints import resolve
    from millstream.adapters.files.tabular import open_table
    from millstream.app.assembly import assemble
    from millstream.app.event_file import events_of
    from millstream.app.replay_labels import late_labels
    from millstream.app.replaying import History
    from millstream.app.seeding import require_unconsumed, seed_state
    from millstream.cli.replay import day_ms, progress_bar

    console = Console()
    settings = load_settings()
    assembly = assemble(settings)
    endpoints = resolve(settings, assembly.declaration.needs_online_store)
    require_unconsumed(assembly, endpoints)
    declared = declared_by(separator, quote, encoding, decimal_comma, time_unit, time_zone, truncate_times)
    late = late_labels(assembly, source, label, label_delay, labels, declared)
    history = History(assembly)
    read = scored = bad = 0
    bounds = day_ms(start) if start else None, day_ms(end) if end else None
    with progress_bar(console) as bar:
        total = open_table(source, declared).rows_at_most
        task = bar.add_task(f"replay {source.name}", total=total, note="")
        for events, known, unreadable in events_of(
            assembly, source, mapping_of(mapping or []), *bounds, late=late, declared=declared
        ):
            replayed = history.feed(events, known)
            read, scored, bad = replayed.read, scored + replayed.scored.length, bad + unreadable
            bar.update(task, completed=read + bad)
    if bad:
        raise Misconfigured(
            f"{bad:,} rows of {source} cannot be read as events, and windows without them would be wrong: nothing was "
            f"seeded. `millstream replay {source} --out DIR --rejected FILE` names each"
        )
    rows = seed_state(assembly, endpoints, history)
    console.print(
        f"[bold]{rows:,}[/] rows of state seeded from {scored:,} of {read:,} events; `millstream run` continues from "
        "them",
        highlight=False,
    )
