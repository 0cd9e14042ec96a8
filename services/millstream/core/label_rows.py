"""Labels as tables: the fields with which every command reads them.

An id is read as the events' contract has it: as a whole number where that says so, then written as the text that keys
the event. A label of two classes is 0 or 1, true or false, of any type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from millstream.core.avro.explain_cell import BINARY_LABEL
from millstream.core.avro.schema import Field
from millstream.core.batch import Array, Batch
from millstream.core.ledger.label_sets import KINDS
from millstream.core.text import as_text

_WHOLE = frozenset({"int", "long"})
EVENT_ID, LABEL, KNOWN_AT, SOURCE, KIND = "event_id", "label", "known_at_ms", "source", "kind"

TABLE_FIELDS = (
    Field(EVENT_ID, "string"),
    Field(LABEL, "double", nullable=True, default=None),
    Field(KNOWN_AT, "long", nullable=True, default=None, logical_type="timestamp-millis"),
    Field(SOURCE, "string", default=""),
    Field(KIND, "enum", default="new", enum_name="LabelKind", symbols=KINDS),
)
"""Fields of a table of labels that is no topic's."""


@dataclass(frozen=True, slots=True)
class LabelShape:
    """How rows of labels are read.

    Parameters
    ----------
    fields : tuple of Field
        What the columns are converted to.
    whole_ids : bool
        Ids are read as whole numbers.
    whole_labels : bool
        Labels are written as whole numbers.
    """

    fields: tuple[Field, ...]
    whole_ids: bool
    whole_labels: bool = False

    @staticmethod
    def of(fields: Sequence[Field], event_id: Field | None) -> LabelShape:
        """Return how to read labels with these fields.

        Parameters
        ----------
        event_id : Field or None
            The events' id; None where their contract is not known, so that any text is an id.
        """
        whole = event_id is not None and event_id.kind in _WHOLE
        kind = next((each.kind for each in fields if each.name == LABEL), "double")
        read = [_read_as(each, event_id if whole else None) for each in fields]
        if event_id is not None and event_id.name != EVENT_ID:
            read = [replace(e, aliases=(*e.aliases, event_id.name)) if e.name == EVENT_ID else e for e in read]
        return LabelShape(tuple(read), whole, kind in _WHOLE)

    def restored(self, batch: Batch) -> Batch:
        """Return the rows with ids as text and labels as numbers."""
        columns: dict[str, Array] = {}
        if self.whole_ids and EVENT_ID in batch.columns:
            ids = np.empty(batch.length, dtype=np.object_)
            ids[:] = [each.decode() for each in as_text(batch.columns[EVENT_ID])]
            columns[EVENT_ID] = ids
        if LABEL in batch.columns and batch.columns[LABEL].dtype == np.bool_:
            columns[LABEL] = batch.columns[LABEL].astype(np.int64 if self.whole_labels else np.float64)
        nulls = {name: batch.nulls[name] for name in columns if name in batch.nulls}
        return batch.with_columns(columns, nulls)


def _read_as(field: Field, whole_id: Field | None) -> Field:
    """Return what a field of a label is read as: an id as the events have it, a number as a label of two classes."""
    if field.name == EVENT_ID and whole_id is not None:
        return replace(field, kind=whole_id.kind)
    if field.name == LABEL and field.kind in {*_WHOLE, "float", "double"}:
        default = bool(field.default) if isinstance(field.default, int | float) else field.default
        return replace(field, kind="boolean", default=default, logical_type=BINARY_LABEL)
    return field
