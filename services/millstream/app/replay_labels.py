"""Where a replay finds labels: in a column of its events, or in a file beside them, each with its own known time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from millstream.adapters.files.label_file import LabelFile, read_labels
from millstream.adapters.files.tabular import NOTHING_DECLARED, Declared, open_table
from millstream.app.durations import duration_ms
from millstream.app.label_policy import label_policy
from millstream.app.late_labels import Labels
from millstream.app.training_data import DEFAULT_LABEL
from millstream.core.avro.convert import convert
from millstream.core.avro.explain_cell import BINARY_LABEL, explain
from millstream.core.avro.reading import Reading
from millstream.core.avro.schema import Field
from millstream.core.batch import Array, Rows
from millstream.core.label_rows import EVENT_ID, KIND, KNOWN_AT, LABEL, SOURCE
from millstream.core.ledger.label_sets import KINDS, RETRACTION, LabelSets, source_hashes, stamps
from millstream.core.ledger.label_timeline import LabelTimeline, label_timeline
from millstream.core.ledger.resolution import Policy
from millstream.errors import Misconfigured

if TYPE_CHECKING:
    from millstream.app.assembly import Assembly


@dataclass(frozen=True, slots=True)
class Late:
    """Where the labels of a file of events are.

    Parameters
    ----------
    column : str
        Of the events file.
    delay_ms : int
        A label becomes known so long after its event, where it has no known time of its own.
    known_at : str or None
        Column of the events file with the known time of each label.
    beside : FileLabels or None
        Labels of another file; the columns are then of no meaning.
    """

    column: str
    delay_ms: int
    known_at: str | None = None
    beside: FileLabels | None = None

    @property
    def columns(self) -> list[str]:
        """The columns that must be read of the events file."""
        if self.beside is not None:
            return []
        return [self.column, *([self.known_at] if self.known_at is not None else [])]

    def of(self, frame: pl.DataFrame, ids: Array, times_ms: Rows, reading: Reading) -> Labels | LabelTimeline:
        """Return the labels of events.

        Parameters
        ----------
        frame : DataFrame of shape (n, any)
            Rows of the events file.
        ids, times_ms : ndarray of shape (n,)
            Of the events.

        Raises
        ------
        Misconfigured
            A column holds something else than labels or times.
        """
        if self.beside is not None:
            return self.beside.of(ids, times_ms, self.delay_ms)
        label = label_values(frame, self.column)
        if self.known_at is None:
            return Labels.after(label, times_ms, self.delay_ms)
        field = Field(KNOWN_AT, "long", nullable=True, logical_type="timestamp-millis")
        known = convert(frame[self.known_at], field, reading)
        if known.failed.any():
            found = frame[self.known_at][int(np.argmax(known.failed))]
            raise Misconfigured(f"column {self.known_at!r}: {explain(found, field, self.known_at, reading)}")
        return Labels(label, np.where(known.nulls, times_ms + self.delay_ms, known.values))


class FileLabels:
    """Labels of a file, found by event id.

    Parameters
    ----------
    file : LabelFile
    policy : Policy
        Which of several labels of an event is believed.
    """

    def __init__(self, file: LabelFile, policy: Policy) -> None:
        self._file = file
        self._policy = policy
        rows = file.rows
        kinds = {name: position for position, name in enumerate(KINDS)}
        self._kinds = np.fromiter((kinds[each] for each in rows.columns[KIND].tolist()), np.int64, rows.length)
        sources = rows.columns[SOURCE].tolist()
        names = list(dict.fromkeys(sources))
        hashes = dict(zip(names, source_hashes(names).tolist(), strict=True))
        self._sources = np.fromiter((hashes[each] for each in sources), np.int64, rows.length)
        stated = ~rows.is_null(LABEL) | (self._kinds == RETRACTION)
        self._index = _ids(rows.columns[EVENT_ID]).with_row_index("row").filter(pl.Series(stated))
        self._met = np.zeros(rows.length, dtype=np.bool_)
        self._stated = stated

    def report(self, note: Callable[[str], None]) -> None:
        """Pass sentences about labels that were left out."""
        unusable = self._file.note()
        if unusable is not None:
            note(unusable)
        strangers = int(np.count_nonzero(self._stated & ~self._met))
        if strangers:
            note(
                f"{strangers:,} of {int(np.count_nonzero(self._stated)):,} labels are of events that were not replayed"
            )

    def of(self, ids: Array, times_ms: Rows, delay_ms: int) -> LabelTimeline:
        """Return the labels of events, each from its known time on.

        Parameters
        ----------
        ids, times_ms : ndarray of shape (n,)
        delay_ms : int
            A label without a known time becomes known so long after its event; of several such the last one counts.
        """
        met = _ids(ids).with_row_index("event").join(self._index, on="id", how="inner")
        events, rows = met["event"].to_numpy().astype(np.int64), met["row"].to_numpy().astype(np.int64)
        self._met[rows] = True
        given = self._file.rows
        timeless = given.is_null(KNOWN_AT)[rows]
        known_at_ms = np.where(timeless, times_ms[events] + delay_ms, given.columns[KNOWN_AT][rows])
        last = np.ones(len(rows), dtype=np.bool_)
        order = np.lexsort((rows, self._sources[rows], events))
        same = (events[order][1:] == events[order][:-1]) & (
            self._sources[rows][order][1:] == self._sources[rows][order][:-1]
        )
        last[order[:-1]] = ~(same & timeless[order][:-1] & timeless[order][1:])
        events, rows, known_at_ms = events[last], rows[last], known_at_ms[last]
        positive = given.columns[LABEL][rows] == 1
        made = stamps(np.maximum(known_at_ms, 0), self._kinds[rows], positive)
        return label_timeline(self._policy, LabelSets(events, self._sources[rows], made), times_ms)


def _ids(ids: Array) -> pl.DataFrame:
    return pl.DataFrame({"id": ids}, schema={"id": pl.String if ids.dtype == np.object_ else pl.Int64})


def label_values(frame: pl.DataFrame, column: str) -> NDArray[np.float64]:
    """Return a column of labels as 0, 1 and NaN, shape (rows,).

    Raises
    ------
    Misconfigured
        It holds something else.
    """
    field = Field(LABEL, "boolean", nullable=True, logical_type=BINARY_LABEL)
    values, nulls, failed = convert(frame[column], field)
    if failed.any():
        found = explain(frame[column][int(np.argmax(failed))], field, column, Reading())
        raise Misconfigured(
            f"column {column!r} holds other things than 0, 1, true, false and null, so it is no label: {found}"
        )
    return np.where(nulls, np.nan, values.astype(np.float64))


def late_labels(
    assembly: Assembly,
    path: Path,
    column: str | None,
    delay: str,
    labels: Path | None = None,
    declared: Declared = NOTHING_DECLARED,
) -> Late | None:
    """Return where a replay finds labels; None where no feature is made of labels or none are to be used.

    Parameters
    ----------
    path : Path
        The events.
    column : str or None
        None stands for the service's tag ``label``; ``none`` for no labels.
    delay : str
        As ``7d``.
    labels : Path, optional
        A file of labels by event id.

    Raises
    ------
    Misconfigured
        Features are made of labels and the file has none, or the file of labels cannot be read.
    """
    if not assembly.topology.label_derived or column == "none":
        return None
    default = assembly.declaration.service.tags.get("label", DEFAULT_LABEL)
    delay_ms = duration_ms(delay)
    if labels is not None:
        contract = assembly.contract
        file = read_labels(labels, contract.schema[contract.event_id], column, default, declared)
        return Late("", delay_ms, beside=FileLabels(file, label_policy(assembly.settings)))
    present = open_table(path, declared).columns
    found = _found(column or default, present)
    if found is None:
        views = ", ".join(view.name for view in assembly.declaration.views if view.of_labels)
        raise Misconfigured(
            f"{path} has no column {column or default!r}, and features of {views} are made of labels. Name the column "
            f"with --label-column (there are: {', '.join(present)}), or a file of labels with --labels, or replay as "
            "if nothing became known with --label-column none"
        )
    return Late(found, delay_ms, _found(KNOWN_AT, present))


def _found(name: str, present: Sequence[str]) -> str | None:
    if name in present:
        return name
    alike = [each for each in present if each.lower() == name.lower()]
    return alike[0] if len(alike) == 1 else None
