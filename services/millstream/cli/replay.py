"""``millstream replay``: history through the same stages, in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from millstream.app import durations
from millstream.cli.bad_rows import BadRows, Rejected
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
from millstream.cli.screen import progress
from millstream.errors import Misconfigured
from millstream.settings import load_settings

if TYPE_CHECKING:
    from millstream.adapters.files.ingest import BadRow
    from millstream.adapters.files.tabular import Declared
    from millstream.app.assembly import Assembly
    from millstream.app.replay_file import ReplayCounts


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def progress_bar(console: Console) -> Progress:
    """Return the bar that every long command shows."""
    return progress(
        console,
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )


def day_ms(text: str) -> int:
    """Return an ISO date or time, in UTC unless it has a zone, as milliseconds since the epoch."""
    try:
        return durations.moment_ms(text)
    except Misconfigured as error:
        raise typer.BadParameter(str(error)) from error


def replay(
    source: Annotated[Path, typer.Argument(help="Parquet, CSV or JSON lines; events in the order to replay.")],
    out: Annotated[Path, typer.Option(help="Directory for scored.parquet and dead-letters.parquet.")],
    start: Annotated[str | None, typer.Option("--from", help="First event time (ISO, UTC).")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Event time to stop before (ISO, UTC).")] = None,
    model: Annotated[str, typer.Option(help="champion, a version number, or none (the declared rule).")] = "champion",
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
    rejected: Rejected = None,
    separator: Separator = None,
    quote: Quote = '"',
    encoding: Encoding = "utf-8",
    decimal_comma: DecimalComma = False,
    time_unit: TimeUnit = None,
    time_zone: TimeZone = None,
    truncate_times: TruncateTimes = False,
) -> None:
    """Replay history through the stages that run live; write features, scores and dead-letter records."""
    from millstream.app.assembly import assemble
    from millstream.app.replay_labels import late_labels

    console = Console()
    settings = load_settings()
    pairs = mapping_of(mapping or [])
    assembly = assemble(settings)
    declared = declared_by(separator, quote, encoding, decimal_comma, time_unit, time_zone, truncate_times)
    late = late_labels(assembly, source, label, label_delay, labels, declared)
    if labels is not None and late is None:
        console.print(f"[yellow]{labels.name} is not read: no feature is made of labels, or --label-column is none[/]")
    bad, reasons = BadRows(rejected), dict[str, int]()

    def fault(row: BadRow) -> None:
        bad(row)
        reasons[row.reason] = reasons.get(row.reason, 0) + 1

    with bad:
        counts = run_replay(
            assembly,
            source,
            out,
            console,
            start_ms=day_ms(start) if start else None,
            end_ms=day_ms(end) if end else None,
            model=model,
            mapping=pairs,
            late=late,
            declared=declared,
            fault=fault,
        )
    console.print(
        f"[bold]{counts.read:,}[/] events replayed in {counts.seconds:.1f} s "
        f"({counts.read / max(counts.seconds, 1e-9):,.0f}/s): {counts.scored:,} scored, "
        f"{counts.dead_letters:,} dead letters, {counts.duplicates:,} duplicates -> {out}"
    )
    if late is not None and late.beside is not None:
        late.beside.report(lambda sentence: console.print(f"[yellow]{escape(sentence)}[/]", soft_wrap=True))
    if counts.unreadable:
        console.print(
            f"[yellow]{counts.unreadable:,} rows of {source.name} could not be read as events and were left out[/]"
        )
        bad.show(console, reasons, "none of them was replayed")
        raise typer.Exit(1)


def run_replay(
    assembly: Assembly, source: Path, out: Path, console: Console, *, declared: Declared | None = None, **options: Any
) -> ReplayCounts:
    """Replay a file into a directory with a progress bar; see `millstream.app.replay_file.replay_file`."""
    from millstream.adapters.files.tabular import NOTHING_DECLARED, open_table
    from millstream.app.replay_file import replay_file

    total = open_table(source, declared or NOTHING_DECLARED).rows_at_most
    with progress_bar(console) as bar:
        task = bar.add_task(f"replay {source.name}", total=total, note="")

        def show(rows: int, seconds: float) -> None:
            bar.update(task, completed=rows, note=f"{rows / max(seconds, 1e-9):,.0f} events/s")

        counts = replay_file(assembly, source, out, declared=declared, progress=show, **options)
        rows = counts.read + counts.unreadable
        bar.update(task, total=rows, completed=rows)
    return counts
