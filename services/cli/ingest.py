"""``millstream ingest``: any Parquet, CSV or JSON-lines file to a topic, against its contract."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.cli.pace import pace_of
from services.errors import MillstreamError, Misconfigured
from services.settings import Settings, load_settings

if TYPE_CHECKING:
    from services.adapters.ingest import BadRow
    from services.core.contracts import Contract

_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ingest")(ingest_command)


def ingest_command(
    file: Annotated[Path, typer.Argument(help="File to publish: .parquet, .csv, .tsv, .jsonl or .ndjson.")],
    topic: Annotated[str, typer.Option(help="Topic; its contract is schemas/TOPIC.avsc.")],
    rate: Annotated[float | None, typer.Option(help="So many rows a second.")] = None,
    speed: Annotated[
        float | None, typer.Option(help="So many times faster than event time: 1 is real, 3600 an hour a second.")
    ] = None,
    mapping: Annotated[
        list[str] | None, typer.Option("--map", help="COLUMN=FIELD, where the names do not tell; repeat.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many rows.")] = None,
    resume_from: Annotated[int, typer.Option(min=0, help="First row to publish; rows count from 0.")] = 0,
    send_bad: Annotated[
        bool, typer.Option(help="Publish rows that violate the contract too, where they can be encoded.")
    ] = False,
    rejected: Annotated[Path | None, typer.Option(help="Write every bad row to this file, as JSON lines.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Publish a file's rows in order, as fast as Kafka takes them or at a pace.

    Columns are matched by name, in upper or lower case; times without a zone are UTC. Rows that do not fit the contract
    are named and not sent. Exits 1 if there are any, 130 on Ctrl-C, always saying where to go on.
    """
    from services.adapters.contracts import load_contract
    from services.adapters.ingest import Progress, columns_for, ingest, resume_row
    from services.adapters.tabular import open_table
    from services.cli.lateness import first_event_ms
    from services.cli.publishing import kafka_with, publisher_with_bar, writer_for

    pace = pace_of(rate, speed)
    named = _mapping(mapping or [])
    settings = load_settings()
    console = Console(stderr=True)
    contract = load_contract(settings, topic)
    table = open_table(file)
    columns = columns_for(table, contract, named)
    kafka = kafka_with(settings, [topic])
    writer = writer_for(settings, topic, contract)
    _warn_of_late(console, settings, kafka, topic, first_event_ms(table, columns, contract, resume_from), contract)
    progress = Progress(resume_from)
    bad = _BadRows(rejected)
    total = max(0, min(limit or table.rows_at_most, table.rows_at_most - resume_from))
    failure: KeyboardInterrupt | MillstreamError | None = None
    publisher = None
    with bad:
        try:
            with publisher_with_bar(console, kafka, pace, total, file.name, lambda: progress.bad_rows) as publisher:
                ingest(
                    table,
                    columns,
                    topic,
                    contract,
                    writer,
                    publisher,
                    progress,
                    bad,
                    limit=limit,
                    send_bad=send_bad,
                )
        except (KeyboardInterrupt, MillstreamError) as caught:
            failure = caught
    acked = publisher.deliveries.acked if publisher is not None else 0
    resume = resume_row(publisher, progress) if publisher is not None else resume_from
    console.print(f"{acked:,} rows acknowledged on {topic}", highlight=False)
    _show_bad(console, bad, progress.reasons, sent=send_bad)
    if failure is not None:
        console.print(f"stopped; go on with --resume-from {resume}", highlight=False)
    if as_json:
        told = {"acked": acked, "bad_rows": progress.bad_rows, "reasons": progress.reasons, "resume_from": resume}
        typer.echo(json.dumps(told))
    if failure is not None:
        raise failure
    if progress.bad_rows:
        raise typer.Exit(1)


def _warn_of_late(
    console: Console, settings: Settings, kafka: Mapping[str, str], topic: str, first_ms: int | None, contract: Contract
) -> None:
    """Say so if the file's events are older than what the stages still take."""
    from services.adapters.compiled_repo import compiled_repo
    from services.cli.lateness import late_warning, newest_event_ms

    newest_ms = newest_event_ms(kafka, topic, contract)
    if first_ms is None or newest_ms is None or first_ms >= newest_ms:
        return
    try:
        declaration = compiled_repo(settings).declaration
    except Misconfigured:
        return  # no stages run from here, so none turns anything away
    said = late_warning(settings, topic, first_ms, newest_ms, declaration)
    if said is not None:
        console.print(f"[yellow]warning[/]: {escape(said)}", highlight=False, soft_wrap=True)


def _mapping(options: list[str]) -> dict[str, str]:
    pairs = [option.partition("=") for option in options]
    for column, equals, name in pairs:
        if not (column and equals and name):
            raise typer.BadParameter(f"--map {column}{equals}{name}: say COLUMN=FIELD")
    return {column: name for column, _, name in pairs}


class _BadRows:
    """Keeps the first bad rows to show, and writes all of them where asked."""

    def __init__(self, path: Path | None) -> None:
        self.first: list[BadRow] = []
        self.path = path
        self._file: TextIO | None = None

    def __enter__(self) -> None:
        if self.path is not None:
            self._file = self.path.open("w", encoding="utf-8")

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def __call__(self, row: BadRow) -> None:
        if len(self.first) < _SHOWN:
            self.first.append(row)
        if self._file is not None:
            self._file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")


def _show_bad(console: Console, bad: _BadRows, reasons: dict[str, int], *, sent: bool) -> None:
    count = sum(reasons.values())
    if not count:
        return
    table = Table("row", "field", "value", "reason", "detail", title=f"{count:,} bad rows (rows count from 0)")
    for each in bad.first:
        cells = (str(each.row), each.field, (each.value or "")[:40], each.reason, each.detail)
        table.add_row(*(escape(cell) for cell in cells))
    console.print(table)
    where = f"; all are in {bad.path}" if bad.path is not None else "; --rejected FILE writes all of them"
    fate = "those that could be encoded were sent" if sent else "none was sent"
    console.print(", ".join(f"{reason} {n:,}" for reason, n in reasons.items()) + f"; {fate}{where}", highlight=False)
