"""``millstream replay``: history through the same stages, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

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
from millstream.settings import Settings, load_settings

if TYPE_CHECKING:
    from millstream.adapters.ingest import BadRow
    from millstream.adapters.tabular import Declared
    from millstream.cli.assembly import Assembly
    from millstream.cli.late_labels import Labels
    from millstream.cli.replay_labels import Late
    from millstream.core.batch import Batch
    from millstream.core.ledger.beliefs import Beliefs
    from millstream.score.scorer import Champion


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
    """Return an ISO date or time, UTC unless it says otherwise, as milliseconds since the epoch."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no ISO date or time, such as 2018-08-01") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def events_of(
    assembly: Assembly,
    path: Path,
    mapping: dict[str, str],
    start_ms: int | None = None,
    end_ms: int | None = None,
    late: Late | None = None,
    declared: Declared | None = None,
    fault: Callable[[BadRow], None] = lambda _: None,
) -> Iterator[tuple[Batch, Labels | Beliefs | None, int]]:
    """Yield the file's events in file order, their labels, and how many rows could not be read as events.

    Rows outside [start_ms, end_ms) of event time are passed over.

    Parameters
    ----------
    fault : callable
        Takes each fault of a row that could not be read.

    Raises
    ------
    Misconfigured
        The file has no such label column, or it holds something else than 0, 1, true, false and null.
    """
    import numpy as np

    from millstream.adapters.ingest import bad_row, columns_for
    from millstream.adapters.tabular import NOTHING_DECLARED, open_table
    from millstream.core.avro.convert import to_batch

    table = open_table(path, declared or NOTHING_DECLARED)
    contract = assembly.contract
    columns = columns_for(table, contract, mapping)
    wanted = list(columns.values()) + (late.columns if late is not None else [])
    for chunk in table.chunks(list(dict.fromkeys(wanted))):
        batch, rejections = to_batch(contract.schema.fields, columns, chunk.frame, table.reading)
        times_ms = batch.columns[contract.event_time]
        good = np.ones(batch.length, dtype=np.bool_)
        unread = {each.row for each in chunk.rejections}
        faults = [*chunk.rejections, *(each for each in rejections if each.row not in unread)]
        for each in sorted(faults, key=lambda each: each.row):
            fault(bad_row(chunk, each, columns))
        bad = {each.row for each in faults}
        good[list(bad)] = False
        if start_ms is not None:
            good &= times_ms >= start_ms
        if end_ms is not None:
            good &= times_ms < end_ms
        labels = None
        if late is not None:
            ids = batch.columns[contract.event_id]
            labels = late.of(chunk.frame, ids, times_ms, table.reading).take(np.flatnonzero(good))
        yield (batch if good.all() else batch.take(good)), labels, len(bad)


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
    """Replay history through the very stages that run live; write features, scores and dead letters."""
    from millstream.cli.assembly import assemble
    from millstream.cli.replay_labels import late_labels

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
            champion=model,
            mapping=pairs,
            late=late,
            declared=declared,
            fault=fault,
        )
    console.print(
        f"[bold]{counts['read']:,}[/] events replayed in {counts['seconds']:.1f} s "
        f"({counts['read'] / max(counts['seconds'], 1e-9):,.0f}/s): {counts['scored']:,} scored, "
        f"{counts['dead']:,} dead letters, {counts['duplicates']:,} duplicates -> {out}"
    )
    if late is not None and late.beside is not None:
        late.beside.report(lambda sentence: console.print(f"[yellow]{escape(sentence)}[/]", soft_wrap=True))
    if counts["bad"]:
        console.print(
            f"[yellow]{counts['bad']:,} rows of {source.name} could not be read as events and were left out[/]"
        )
        bad.show(console, reasons, "none of them was replayed")
        raise typer.Exit(1)


def run_replay(
    assembly: Assembly,
    source: Path,
    out: Path,
    console: Console,
    *,
    start_ms: int | None = None,
    end_ms: int | None = None,
    champion: str = "none",
    mapping: dict[str, str] | None = None,
    late: Late | None = None,
    declared: Declared | None = None,
    fault: Callable[[BadRow], None] = lambda _: None,
) -> dict[str, float]:
    """Replay a file into a directory with a progress bar; return counts and seconds.

    Parameters
    ----------
    late : Late, optional
        For label-derived features; without it they are as if nothing ever became known.
    """
    import time

    from millstream.adapters.parquet_out import ParquetOut
    from millstream.adapters.tabular import NOTHING_DECLARED, open_table
    from millstream.cli.replaying import History
    from millstream.topology import DEAD_LETTERS

    history = History(assembly, load_champion(assembly.settings, assembly, champion))
    total = open_table(source, declared or NOTHING_DECLARED).rows_at_most
    started_s = time.perf_counter()
    bad = 0
    last = assembly.topology.stages[-1]
    with (
        progress_bar(console) as bar,
        ParquetOut(out / "scored.parquet", last.output_schema) as scored,
        ParquetOut(out / "dead-letters.parquet", assembly.contracts[DEAD_LETTERS].schema) as dead,
    ):
        task = bar.add_task(f"replay {source.name}", total=total, note="")
        read = 0
        for events, labels, unreadable in events_of(
            assembly, source, mapping or {}, start_ms, end_ms, late, declared, fault
        ):
            bad += unreadable
            replayed = history.feed(events, labels)
            scored.write(replayed.scored)
            dead.write(replayed.dead_letters)
            read = replayed.read
            speed = read / (time.perf_counter() - started_s)
            bar.update(task, completed=read + bad, note=f"{speed:,.0f} events/s")
        bar.update(task, total=read + bad, completed=read + bad)
    return {
        "read": read,
        "scored": scored.rows,
        "dead": dead.rows,
        "duplicates": read - scored.rows - dead.rows,
        "bad": bad,
        "seconds": time.perf_counter() - started_s,
    }


def load_champion(settings: Settings, assembly: Assembly, which: str) -> Champion | None:
    """Return the model a command names: ``none``, ``champion`` or a version number."""
    from millstream.core.manifest import define
    from millstream.score.scorer import Champion

    if which == "none":
        return None
    from millstream.adapters.registry import open_registry

    service = assembly.declaration.service
    registry = open_registry(settings)
    found = registry.load(service.name, None if which == "champion" else int(which))
    if found is None:
        if which == "champion":
            return None
        raise Misconfigured(f"model {service.name} has no version {which}; see `millstream models list`")
    return Champion.load(found, service, settings.score_threads, define(assembly.declaration))
