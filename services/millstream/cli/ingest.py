"""``millstream ingest``: any Parquet, CSV or JSON-lines file to a topic, against its contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

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
from millstream.errors import MillstreamError
from millstream.settings import load_settings


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
        list[str] | None, typer.Option("--map", help="COLUMN=FIELD, where the names differ; repeatable.")
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
    from millstream.adapters.files.ingest import Progress, resume_row
    from millstream.app.publishing import prepare
    from millstream.cli.publishing import publisher_with_bar

    pace = pace_of(rate, speed)
    named = mapping_of(mapping or [])
    console = Console(stderr=True)
    declared = declared_by(separator, quote, encoding, decimal_comma, time_unit, time_zone, truncate_times)
    publication = prepare(load_settings(), topic, file, declared, named, resume_from)
    for sentence in publication.warnings:
        console.print(f"[yellow]warning[/]: {escape(sentence)}", highlight=False, soft_wrap=True)
    progress = Progress(resume_from)
    bad = BadRows(rejected)
    total = publication.rows_at_most(resume_from, limit)
    failure: KeyboardInterrupt | MillstreamError | None = None
    publisher = None
    with bad:
        try:
            with publisher_with_bar(
                console, publication.kafka, pace, total, file.name, lambda: progress.bad_rows
            ) as publisher:
                publication.publish(publisher, progress, bad, limit=limit, send_bad=send_bad)
        except (KeyboardInterrupt, MillstreamError) as caught:
            failure = caught
    acked = publisher.deliveries.acked if publisher is not None else 0
    resume = resume_row(publisher, progress) if publisher is not None else resume_from
    console.print(f"{acked:,} rows acknowledged on {publication.topic}", highlight=False)
    bad.show(
        console, progress.reasons, "those that could be encoded were sent" if send_bad else "none of them was sent"
    )
    if failure is not None:
        console.print(f"stopped; go on with --resume-from {resume}", highlight=False)
    if as_json:
        result = {"acked": acked, "bad_rows": progress.bad_rows, "reasons": progress.reasons, "resume_from": resume}
        typer.echo(json.dumps(result))
    if failure is not None:
        raise failure
    if progress.bad_rows:
        raise typer.Exit(1)
