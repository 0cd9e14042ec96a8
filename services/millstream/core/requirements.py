"""What the stages after scoring require of the records they read, independent of the writer and its version.

Scored records and examples were validated when their events came in; these constraints hold for what was added since.
They are the engine's own and do not depend on a team's copy of the envelopes: what they let through, every stage can
process. What they refuse becomes a dead letter, live and in a replay alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from millstream.core.avro.schema import Schema
from millstream.core.batch import Batch, Mask, Rejection
from millstream.core.constraint import Constraint
from millstream.core.ledger.label_sets import LATEST_MS

UNUSABLE: Final = "unusable"
"""Reason of records of the engine's own topics that can be decoded and that no stage can use."""

EARLIEST_MS: Final = -62_135_596_800_000
"""Earliest event time there may be, the start of year 1; the latest is `LATEST_MS`. Milliseconds since the epoch."""

_PROBABILITY: Final[Mapping[str, Any]] = {"minimum": 0, "maximum": 1, "finite": True}
_VERSION: Final[Mapping[str, Any]] = {"minimum": 0, "maximum": 1 << 62}
_LABEL: Final[Mapping[str, Any]] = {"allowed": (0.0, 1.0)}
_CHANGE: Final = r"\[[0-9]{1,15},(?:0|1|null)\]"
_REQUIRED: Final[Mapping[str, Mapping[str, Any]]] = {
    "score": _PROBABILITY,
    "champion_score": _PROBABILITY,
    "online_score": _PROBABILITY,
    "model_version": _VERSION,
    "champion_version": _VERSION,
    "online_version": _VERSION,
    "label": _LABEL,
    "previous_label": _LABEL,
    "label_known_at_ms": {"minimum": 0, "maximum": LATEST_MS},
    "revision": {"minimum": 1, "maximum": 1 << 62},
    "belief_history": {"pattern": rf"\[(?:{_CHANGE}(?:,{_CHANGE})*)?\]"},  # `millstream.core.ledger.label_history`
}


def required(schema: Schema, time_column: str | None = None) -> tuple[Constraint, ...]:
    """Return what is required of records of a schema, of the fields that it has.

    Parameters
    ----------
    schema : Schema
        Of scored records, or of examples or a part of them.
    time_column : str, optional
        Event time, milliseconds since the epoch, where the schema has it.
    """
    timed = [] if time_column is None else [Constraint(time_column, minimum=EARLIEST_MS, maximum=LATEST_MS)]
    return *timed, *(Constraint(name, **_REQUIRED[name]) for name in _REQUIRED if name in schema.names)


def refuse(constraints: Sequence[Constraint], batch: Batch) -> tuple[Mask, list[Rejection]]:
    """Return which rows meet the constraints, and a rejection of each other row with the reason `UNUSABLE`."""
    sound = np.ones(batch.length, dtype=np.bool_)
    untimed = np.full(batch.length, -1, dtype=np.int64)
    found = [each for constraint in constraints for each in constraint.rejections(batch, untimed, sound)]
    return sound, [replace(each, reason=UNUSABLE) for each in sorted(found, key=lambda each: each.row)]
