"""A file to a topic: read, convert, validate against the contract, publish; every row has one known outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from millstream.adapters.files.tabular import Chunk, TabularFile
from millstream.adapters.kafka.paced_publisher import PacedPublisher
from millstream.core.avro.convert import to_batch
from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.match_columns import match_columns
from millstream.core.batch import Rejection
from millstream.core.contracts import Contract
from millstream.core.label_rows import LabelShape
from millstream.core.text import as_text
from millstream.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is at fault.

    Parameters
    ----------
    row : int
        Position in the file, from 0 (a CSV header is no row).
    field : str
        The field, or ``""`` when the whole row is at fault.
    value : str or None
        What the file has there, as text.
    reason, detail : str
        As in `Rejection`.
    """

    row: int
    field: str
    value: str | None
    reason: str
    detail: str


@dataclass(slots=True)
class Progress:
    """How far it got. ``next_row`` is the first row not yet looked at; ``reasons`` counts bad rows by reason."""

    next_row: int
    good_rows: int = 0
    bad_rows: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


def columns_for(
    table: TabularFile, contract: Contract, mapping: Mapping[str, str], shape: LabelShape | None = None
) -> Mapping[str, str]:
    """Find the column of each field of the contract.

    Parameters
    ----------
    shape : LabelShape, optional
        The rows are labels, which are read like this.

    Raises
    ------
    Misconfigured
        Naming each field that has none or several, and the columns there are.
    """
    fields = contract.schema.fields if shape is None else shape.fields
    matched = match_columns(fields, table.columns, mapping)
    if matched.problems:
        raise Misconfigured(f"{table.path.name} does not fit the contract:\n  " + "\n  ".join(matched.problems))
    return matched.columns


def ingest(
    table: TabularFile,
    columns: Mapping[str, str],
    topic: str,
    contract: Contract,
    writer: RecordWriter,
    publisher: PacedPublisher,
    progress: Progress,
    bad: Callable[[BadRow], None],
    *,
    limit: int | None = None,
    send_bad: bool = False,
    shape: LabelShape | None = None,
) -> None:
    """Publish a file's rows in order, from ``progress.next_row`` on.

    Parameters
    ----------
    columns : mapping of field name to column name
        See `columns_for`.
    progress : Progress
        Kept up to date, so that it is right whenever this is interrupted.
    bad : callable
        Called with each error: a row with errors in two fields is reported twice and counted once.
    send_bad : bool
        Publish rows too that can be encoded but violate the contract.
    shape : LabelShape, optional
        As in `columns_for`.
    """
    wanted = list(columns.values())
    fields = contract.schema.fields if shape is None else shape.fields
    for chunk in table.chunks(wanted, start=progress.next_row, limit=limit):
        batch, unfit = to_batch(fields, columns, chunk.frame, table.reading)
        batch = batch if shape is None else shape.restored(batch)
        unread = {each.row for each in chunk.rejections}
        unfit = [*chunk.rejections, *(each for each in unfit if each.row not in unread)]
        fit = np.ones(batch.length, dtype=np.bool_)
        fit[[each.row for each in unfit]] = False
        rows = np.flatnonzero(fit)
        offered = batch.take(rows)
        received_ms = np.full(offered.length, time.time_ns() // 1_000_000)
        sound, violations = contract.validate(offered, received_ms, as_text(offered.columns[contract.key]))
        faults = [*unfit, *(replace(each, row=int(rows[each.row])) for each in violations)]
        for fault in sorted(faults, key=lambda each: each.row):
            bad(bad_row(chunk, fault, columns))
        reasons = {each.row: each.reason for each in reversed(faults)}
        for reason in reasons.values():
            progress.reasons[reason] = progress.reasons.get(reason, 0) + 1
        progress.bad_rows += len(reasons)
        progress.good_rows += int(np.count_nonzero(sound))
        if not send_bad:
            rows, offered = rows[sound], offered.take(sound)
        publisher.send(topic, contract, writer, offered, contract.event_time, (chunk.first_row + rows).tolist())
        progress.next_row = chunk.first_row + batch.length


def bad_row(chunk: Chunk, fault: Rejection, columns: Mapping[str, str]) -> BadRow:
    """Return a fault of a chunk's row as one of the file's."""
    if fault.row in chunk.raw:
        value: str | None = chunk.raw[fault.row]
    else:
        column = columns.get(fault.field)
        found = chunk.frame[column][fault.row] if column is not None else None
        value = None if found is None else str(found)
    return BadRow(chunk.first_row + fault.row, fault.field, value, fault.reason, fault.detail)


def resume_row(publisher: PacedPublisher, progress: Progress) -> int:
    """Return the first row whose fate is not known: going on there misses none, and sends none twice that is."""
    deliveries = publisher.deliveries
    reached = max(progress.next_row, deliveries.next_tag)
    return min([reached, *deliveries.waiting, *(tag for tag, _ in deliveries.failed)])
