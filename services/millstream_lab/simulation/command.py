"""``millstream simulate``: the reference domain's stream, to a file, to Kafka, or against a published copy."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from millstream.cli.pace import pace_of
from millstream.cli.screen import progress
from millstream.errors import Misconfigured
from millstream.settings import load_settings

if TYPE_CHECKING:
    from millstream.core.batch import Batch


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("simulate")(simulate_command)


def simulate_command(
    out: Annotated[Path | None, typer.Argument(help="File to write: .parquet, .csv or .jsonl.")] = None,
    customers: Annotated[int, typer.Option(min=1, help="Number of customers.")] = 5000,
    terminals: Annotated[int, typer.Option(min=1, help="Number of terminals.")] = 10_000,
    days: Annotated[int, typer.Option(min=1, help="Length of the stream.")] = 183,
    start: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="First day (UTC).")] = datetime(2018, 4, 1),  # noqa: DTZ001 typer passes naive dates
    radius: Annotated[float, typer.Option(min=0.0, help="Customers use terminals nearer than this, of 100.")] = 5.0,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="0 is the book's.")] = 0,
    labels: Annotated[Path | None, typer.Option(help="File for the labels, each known 7 days later.")] = None,
    topic: Annotated[str | None, typer.Option(help="Publish the transactions to this topic.")] = None,
    labels_topic: Annotated[str | None, typer.Option(help="Publish the labels to this topic, 7 days later.")] = None,
    rate: Annotated[float | None, typer.Option(help="Publish so many records a second.")] = None,
    speed: Annotated[
        float | None, typer.Option(help="Publish so many times faster than event time; 1 is real.")
    ] = None,
    compare: Annotated[Path | None, typer.Option(help="Count the rows that differ from a published file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Simulate card payments as the Fraud Detection Handbook does.

    With the defaults the result is the book's published data set, row by row. Exits 1 if --compare finds rows that
    the other file does not have, whatever their order.
    """
    from millstream.adapters.files.write_table import check_writable, write_table
    from millstream.core.simulation.simulate import Simulation, labels_of, simulate

    pace = pace_of(rate, speed)
    if all(target is None for target in (out, labels, topic, labels_topic, compare)):
        raise typer.BadParameter("say where to: OUT.parquet, --topic, --labels, --labels-topic or --compare FILE")
    for path in (out, labels):
        if path is not None:
            check_writable(path)
    settings = load_settings()
    console = Console(stderr=True)
    start_ms = int(start.replace(tzinfo=UTC).timestamp()) * 1000
    simulation = Simulation(customers, terminals, days, start_ms, radius, seed)
    with progress(console) as bars:
        bar = bars.add_task("simulating customers", total=customers)
        stream = simulate(simulation, lambda done, _total: bars.update(bar, completed=done))
    summary: dict[str, object] = {"transactions": stream.length, "frauds": int(stream.columns["is_fraud"].sum())}
    console.print(f"{stream.length:,} transactions, {summary['frauds']:,} of them fraudulent")
    if out is not None:
        write_table(out, stream)
        console.print(f"wrote {out}")
    if labels is not None:
        write_table(labels, labels_of(stream))
        console.print(f"wrote {labels}")
    if topic is not None or labels_topic is not None:
        from millstream_lab.simulation.publish import publish_simulation

        summary |= publish_simulation(settings, console, stream, topic, labels_topic, pace)
    code = 0
    if compare is not None:
        found = _compared(stream, compare)
        summary |= found
        console.print(
            f"against {compare.name} ({found['theirs']:,} rows): {found['by_position']:,} rows differ row by row; "
            f"leaving aside the order within one second, {found['only_ours']:,} are only here and "
            f"{found['only_theirs']:,} only there",
            soft_wrap=True,
        )
        code = int(bool(found["only_ours"] or found["only_theirs"]))
    if as_json:
        typer.echo(json.dumps(summary))
    if code:
        raise typer.Exit(code)


def _compared(stream: Batch, path: Path) -> dict[str, int]:
    """Read a published file, whose columns may be named as the book names them, and count differences."""
    import numpy as np

    from millstream.adapters.files.tabular import open_table
    from millstream.core.avro.convert import to_batch
    from millstream.core.avro.match_columns import match_columns
    from millstream.core.avro.schema import Field
    from millstream.core.batch import Batch
    from millstream_lab.simulation.row_differences import row_differences

    fields = [
        Field("transaction_id", "long"),
        Field("customer_id", "long"),
        Field("terminal_id", "long"),
        Field("event_time_ms", "long", logical_type="timestamp-millis", aliases=("tx_datetime",)),
        Field("amount", "double", aliases=("tx_amount",)),
        Field("is_fraud", "boolean", aliases=("tx_fraud",)),
        Field("fraud_scenario", "long", aliases=("tx_fraud_scenario",)),
    ]
    table = open_table(path)
    matched = match_columns(fields, table.columns, {})
    if matched.problems:
        raise Misconfigured(f"{path.name} cannot be compared:\n  " + "\n  ".join(matched.problems))
    batches = []
    for chunk in table.chunks(list(matched.columns.values()), size=1_000_000):
        batch, rejections = to_batch(fields, matched.columns, chunk.frame)
        for rejection in [*chunk.rejections, *rejections][:1]:
            row = chunk.first_row + rejection.row
            raise Misconfigured(f"{path.name} cannot be compared: row {row}, {rejection.field}: {rejection.detail}")
        batches.append(batch)
    nothing = stream.take(np.zeros(0, dtype=np.int64))
    theirs = {name: np.concatenate([each.columns[name] for each in [nothing, *batches]]) for name in stream.columns}
    found = row_differences(stream, Batch(len(theirs["amount"]), theirs), positional=["transaction_id"])
    return {
        "theirs": found.theirs,
        "by_position": found.by_position,
        "only_ours": found.only_ours,
        "only_theirs": found.only_theirs,
    }
