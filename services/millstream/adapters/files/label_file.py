"""Labels from a file, as `ingest`, `replay` and `train` read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from millstream.adapters.files.tabular import NOTHING_DECLARED, Chunk, Declared, open_table
from millstream.core.avro.convert import to_batch
from millstream.core.avro.match_columns import match_columns
from millstream.core.avro.reading import Reading
from millstream.core.avro.schema import Field
from millstream.core.batch import Batch, Rejection, joined
from millstream.core.label_rows import EVENT_ID, KIND, KNOWN_AT, LABEL, SOURCE, TABLE_FIELDS, LabelShape
from millstream.core.ledger.label_sets import LATEST_MS
from millstream.errors import Misconfigured

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class LabelFile:
    """Rows of labels, n of them, in the file's order.

    Parameters
    ----------
    rows : Batch of length n
        ``event_id`` (int64 or str, as the events have it), ``label`` (float64, null on a retraction or where there is
        none), ``known_at_ms`` (null where the file does not say), ``source`` and ``kind``.
    dated : bool
        There is a column of known times.
    unusable : sequence of str
        Of each row without a usable id: what is wrong with it. They are not among the rows.
    """

    rows: Batch
    dated: bool
    unusable: Sequence[str]

    def note(self) -> str | None:
        """Return what to report about labels without a usable id, None if there are none."""
        if not self.unusable:
            return None
        shown = "; ".join(self.unusable[:_SHOWN])
        return f"{len(self.unusable):,} labels have no usable event id and are left out: {shown}"


def read_labels(
    path: Path, event_id: Field, label: str | None, default: str, declared: Declared = NOTHING_DECLARED
) -> LabelFile:
    """Read a file of labels.

    Parameters
    ----------
    event_id : Field
        The events' id.
    label : str or None
        The labels' column; None: the column ``default`` or ``label``.

    Raises
    ------
    Misconfigured
        There is no such file or column, or a row holds something else than a label, a known time and a kind.
    """
    table = open_table(path, declared)
    columns = label_columns(table.columns, event_id, label, default)
    return of_chunks(table.chunks(list(columns.values())), columns, event_id, path.name, declared.reading)


def label_columns(available: Sequence[str], event_id: Field, label: str | None, default: str) -> dict[str, str]:
    """Return the column of each field of a label; raises as `read_labels` does."""
    lowered = {each.lower(): each for each in reversed(available)}
    found = label if label in available else lowered.get((label or default).lower())
    if found is None and label is None:
        found = lowered.get(LABEL)
    if found is None:
        raise _missing([label or default], available)
    fields = LabelShape.of(TABLE_FIELDS, event_id).fields
    if not {EVENT_ID, KNOWN_AT} & set(lowered):
        # A table of events, whose columns `kind` and `source`, if it has them, are about the events.
        fields = tuple(each for each in fields if each.name not in {KIND, SOURCE})
    own = {event_id.name: EVENT_ID} if event_id.name in available and event_id.name != found else {}
    matched = match_columns(fields, available, {found: LABEL, **own})
    if EVENT_ID not in matched.columns and len(matched.problems) == 1:
        raise _missing([event_id.name], available)
    if matched.problems:
        raise Misconfigured("the labels' columns are not clear:\n  " + "\n  ".join(matched.problems))
    return dict(matched.columns)


def _missing(names: Sequence[str], available: Sequence[str]) -> Misconfigured:
    return Misconfigured(
        f"the labels have no column {', '.join(names)}; there are: {', '.join(available)}. "
        "Name the label's with --label-column"
    )


def of_frame(frame: pl.DataFrame, event_id: Field, label: str) -> LabelFile:
    """Return the labels of a table in memory; raises as `read_labels` does."""
    columns = label_columns(frame.columns, event_id, label, label)
    return of_chunks([Chunk(0, frame, [], {})], columns, event_id, "the labels", Reading())


def of_chunks(
    chunks: Iterable[Chunk], columns: dict[str, str], event_id: Field, name: str, reading: Reading
) -> LabelFile:
    """Return the labels in parts of a file; raises as `read_labels` does."""
    fields = LabelShape.of(TABLE_FIELDS, event_id).fields
    made, unusable = [to_batch(fields, {}, pl.DataFrame())[0]], []
    for chunk in chunks:
        batch, rejections = to_batch(fields, columns, chunk.frame, reading)
        broken = {each.row for each in chunk.rejections}
        rejections = [*chunk.rejections, *(each for each in rejections if each.row not in broken)]
        usable = np.ones(batch.length, dtype=np.bool_)
        for each in rejections:
            row = chunk.first_row + each.row
            if each.field != EVENT_ID:
                raise Misconfigured(f"{name}: row {row} (rows count from 0) {_about(each, columns)}")
            usable[each.row] = False
            unusable.append(f"row {row} {_about(each, columns)}")
        known_at_ms = batch.columns[KNOWN_AT]
        outside = ((known_at_ms < 0) | (known_at_ms > LATEST_MS)) & ~batch.is_null(KNOWN_AT) & usable
        if outside.any():
            row = int(np.argmax(outside))
            raise Misconfigured(
                f"{name}: row {chunk.first_row + row} (rows count from 0) is known at {known_at_ms[row]} ms; allowed: "
                f"0 to {LATEST_MS}"
            )
        made.append(batch.take(usable))
    rows = joined(made)
    labels = rows.columns[LABEL].astype(np.float64)
    return LabelFile(rows.with_columns({LABEL: labels}, _null(rows, LABEL)), KNOWN_AT in columns, unusable)


def _null(rows: Batch, name: str) -> dict[str, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    return {name: rows.nulls[name]} if name in rows.nulls else {}


def _about(each: Rejection, columns: dict[str, str]) -> str:
    column = columns.get(each.field, each.field)
    return f"in column {column!r}: {each.detail}" if column else each.detail
