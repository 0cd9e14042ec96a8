"""``millstream ingest``: any Parquet, CSV or JSON-lines file to a topic, against its contract."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

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
from millstream.cli.pace import pace_of
from millstream.errors import MillstreamError, Misconfigured
from millstream.settings import Settings, load_settings
from millstream.topology import LABELS

if TYPE_CHECKING:
    from millstream.core.contracts import Contract
    from millstream.core.label_rows import LabelShape


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ingest")(ingest_command)


def ingest_command(
    file: Annotated[Path, typer.Argument(help="File to publish: .parquet, .csv, .tsv, .jsonl or .ndjson.")],
    topic: Annotated[
        str,
        typer.Option(
            help="Topic, by its plain name or the one on the cluster; its contract is schemas/PLAIN_NAME.avsc."
        ),
    ],
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
    rejected: Rejected = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    separator: Separator = None,
    quote: Quote = '"',
    encoding: Encoding = "utf-8",
    decimal_comma: DecimalComma = False,
    time_unit: TimeUnit = None,
    time_zone: TimeZone = None,
    truncate_times: TruncateTimes = False,
) -> None:
    """Publish a file's rows in order, as fast as Kafka takes them or at a pace.

    Columns are matched by name, in upper or lower case. Every value is read exactly or its row is refused: rows that do
    not fit the contract are named and not sent. Exits 1 if there are any, 130 on Ctrl-C, always with the row to go on
    at.
    """
    from millstream.adapters.files.contracts import load_contract
    from millstream.adapters.files.ingest import Progress, columns_for, ingest, resume_row
    from millstream.adapters.files.tabular import open_table
    from millstream.adapters.kafka.topic_names import plain_name
    from millstream.app.lateness import first_event_ms, unit_warning
    from millstream.cli.publishing import kafka_with, publisher_with_bar, writer_for

    pace = pace_of(rate, speed)
    named = mapping_of(mapping or [])
    settings = load_settings()
    topic = plain_name(settings, topic)
    console = Console(stderr=True)
    contract = load_contract(settings, topic)
    declared = declared_by(separator, quote, encoding, decimal_comma, time_unit, time_zone, truncate_times)
    table = open_table(file, declared)
    shape = label_shape(settings, contract) if topic == LABELS else None
    columns = columns_for(table, contract, named, shape)
    kafka = kafka_with(settings, [topic])
    writer = writer_for(settings, topic, contract)
    first_ms = first_event_ms(table, columns, contract, resume_from)
    unit = unit_warning(columns[contract.event_time], first_ms)
    if unit is not None:
        console.print(f"[yellow]warning[/]: {escape(unit)}", highlight=False, soft_wrap=True)
    _warn_of_late(console, settings, kafka, topic, first_ms, contract)
    progress = Progress(resume_from)
    bad = BadRows(rejected)
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
                    shape=shape,
                )
        except (KeyboardInterrupt, MillstreamError) as caught:
            failure = caught
    acked = publisher.deliveries.acked if publisher is not None else 0
    resume = resume_row(publisher, progress) if publisher is not None else resume_from
    console.print(f"{acked:,} rows acknowledged on {topic}", highlight=False)
    bad.show(
        console, progress.reasons, "those that could be encoded were sent" if send_bad else "none of them was sent"
    )
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
    from millstream.adapters.feast.compiled_repo import compiled_repo
    from millstream.app.lateness import late_warning, newest_event_ms

    newest_ms = newest_event_ms(settings, kafka, topic, contract)
    if first_ms is None or newest_ms is None or first_ms >= newest_ms:
        return
    try:
        declaration = compiled_repo(settings).declaration
    except Misconfigured:
        return  # no stages run from here, so none turns anything away
    said = late_warning(settings, topic, first_ms, newest_ms, declaration)
    if said is not None:
        console.print(f"[yellow]warning[/]: {escape(said)}", highlight=False, soft_wrap=True)


def label_shape(settings: Settings, labels: Contract) -> LabelShape:
    """Return how labels are read: with ids as the events' contract has them, where a feature repo names that."""
    from millstream.adapters.feast.compiled_repo import compiled_repo
    from millstream.adapters.files.contracts import load_contract
    from millstream.core.label_rows import LabelShape

    try:
        events = load_contract(settings, compiled_repo(settings).declaration.topic)
    except Misconfigured:
        return LabelShape.of(labels.schema.fields, None)
    return LabelShape.of(labels.schema.fields, events.schema[events.event_id] if events.event_id else None)
