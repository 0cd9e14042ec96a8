"""Event contracts: an Avro schema, who owns it, what identifies a record, and what its fields may hold.

Constraints are extra attributes of the Avro JSON, which every other Avro library ignores: ``minimum``, ``maximum``,
``exclusive_minimum``, ``exclusive_maximum``, ``allowed``, ``pattern``, ``max_length``, ``not_older_than_ms``,
``not_after_ms`` and, for reals, ``allow_non_finite``; ``doc``, ``unit`` and ``pii`` describe. The record names its
``owner`` and, under ``millstream``, the ``key``, ``event_id`` and ``event_time`` fields. An event time without
``not_after_ms`` may lie a day after its record's timestamp: one that is years ahead must not pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from millstream.core.avro.logical_type import ill_used, meant, type_name
from millstream.core.avro.schema import MISSING, Field, Schema, SchemaError
from millstream.core.batch import Batch, Mask, Rejection
from millstream.core.constraint import Constraint
from millstream.core.text import as_text

_ROLES: Final = ("key", "event_id", "event_time")
NOT_AFTER_MS: Final = 86_400_000
"""How far an event time may lie after its record's timestamp where the contract says nothing, milliseconds."""
_TEXTUAL: Final = frozenset({"int", "long", "string"})


@dataclass(frozen=True, slots=True)
class Contract:
    """What a topic's records are.

    Parameters
    ----------
    schema : Schema
        The Avro record.
    owner, doc : str
        Owner and meaning; ``""`` where not declared.
    key, event_id, event_time : str
        Fields whose text keys the message, that identify the event, and that say when it happened (milliseconds since
        the epoch); ``""`` where the contract declares none.
    generation : int
        Raised, from 1, to break compatibility on purpose: earlier generations are not compared with.
    constraints : tuple of Constraint
        One per field, in schema order.
    """

    schema: Schema
    owner: str
    doc: str
    key: str
    event_id: str
    event_time: str
    generation: int
    constraints: tuple[Constraint, ...]

    @staticmethod
    def parse(source: str | Mapping[str, Any]) -> Contract:
        """Read a contract from Avro JSON.

        Raises
        ------
        SchemaError
            Naming the record and field that is wrong, and what is allowed.
        """
        return Contract.of(Schema.parse(source))

    @staticmethod
    def of(schema: Schema) -> Contract:
        """Read a contract off a schema's attributes; raises as `parse` does."""
        schema.require_columns()
        for item in schema.fields:
            wrong = ill_used(item)
            if wrong is not None:
                raise SchemaError(f"{schema.name}: field {item.name!r}: {wrong}", item.name)
        declared = schema.attributes.get("millstream", {})
        if not isinstance(declared, Mapping) or set(declared) - {*_ROLES, "generation"}:
            raise SchemaError(f"{schema.name}: millstream must be an object of {', '.join(_ROLES)} and generation")
        roles = {role: declared.get(role, "") for role in _ROLES}
        for role, name in roles.items():
            if name:
                _check_role(schema, role, name)
        generation = declared.get("generation", 1)
        if type(generation) is not int or generation < 1:
            raise SchemaError(f"{schema.name}: millstream.generation must be a whole number from 1, not {generation!r}")
        return Contract(
            schema,
            str(schema.attributes.get("owner", "")),
            str(schema.attributes.get("doc", "")),
            **roles,
            generation=generation,
            constraints=tuple(_constraint(schema, item, roles["event_time"]) for item in schema.fields),
        )

    def validate(
        self, batch: Batch, received_ms: NDArray[np.int64], keys: Sequence[bytes | None]
    ) -> tuple[Mask, list[Rejection]]:
        """Hold rows against the contract.

        Parameters
        ----------
        batch : Batch of length n
            Has every field of the schema.
        received_ms : int64 ndarray of shape (n,)
            Kafka timestamps, milliseconds since the epoch; negative where a record has none.
        keys : sequence of bytes or None, length n
            Message keys.

        Returns
        -------
        sound : bool ndarray of shape (n,)
            Rows that keep the contract.
        rejections : list of Rejection
            One per other row, by row: the first field in schema order that is wrong. Reasons: ``null-key``,
            ``key-mismatch``, ``not-finite``, ``range``, ``too-long``, ``not-allowed``, ``pattern``, ``too-old``,
            ``from-the-future``.
        """
        sound = np.ones(batch.length, dtype=np.bool_)
        rejections: list[Rejection] = []
        for constraint in self.constraints:
            name = constraint.field
            if name == self.key:
                rejections += self._key_rejections(batch, keys, sound)
            rejections += constraint.rejections(batch, received_ms, sound)
        rejections.sort(key=lambda rejection: rejection.row)
        return sound, rejections

    def _key_rejections(self, batch: Batch, keys: Sequence[bytes | None], sound: Mask) -> Iterable[Rejection]:
        """Reject rows whose message key is not the text of the key field; update ``sound``."""
        texts = as_text(batch.columns[self.key])
        if texts == list(keys):
            return []
        rejections = []
        for row, (text, key) in enumerate(zip(texts, keys, strict=True)):
            if key == text or not sound[row]:
                continue
            sound[row] = False
            if key is None:
                detail = f"the message has no key; it must be the text of {self.key}"
                rejections.append(Rejection(row, "null-key", self.key, detail))
            else:
                detail = f"the message key is not the UTF-8 text of {self.key}"
                rejections.append(Rejection(row, "key-mismatch", self.key, detail))
        return rejections


def completed(own: Contract, engine: Contract) -> Contract:
    """Return ``own`` with the fields of the engine's contract that it lacks and that have a default.

    A copy of an earlier version's contract lacks fields that were added since.
    """
    added = [item for item in engine.schema.fields if item.name not in own.schema.names and item.default is not MISSING]
    return Contract.of(replace(own.schema, fields=(*own.schema.fields, *added))) if added else own


def unfit(own: Contract, engine: Contract) -> list[str]:
    """Return why the engine cannot use ``own`` in place of ``engine``, its own contract of a topic; empty if it can."""
    faults = []
    for wanted in engine.schema.fields:
        found = own.schema[wanted.name] if wanted.name in own.schema.names else None
        if found is None:
            faults.append(f"it lacks the field {wanted.name!r} ({type_name(wanted)})")
        elif (found.kind, meant(found)) != (wanted.kind, meant(wanted)):
            faults.append(f"field {wanted.name!r} must be {type_name(wanted)}, found {type_name(found)}")
        elif wanted.nullable and not found.nullable:
            faults.append(f"field {wanted.name!r} must allow null")
        elif lost := sorted(set(wanted.symbols) - set(found.symbols)):
            faults.append(f"field {wanted.name!r} lacks the symbols {', '.join(lost)}")
    known = set(engine.schema.names)
    faults += [
        f"field {item.name!r} is unknown to the engine and needs a default"
        for item in own.schema.fields
        if item.name not in known and item.default is MISSING
    ]
    for role in _ROLES:
        if getattr(own, role) != getattr(engine, role):
            faults.append(f"its {role} must be {getattr(engine, role) or 'none'!r}, found {getattr(own, role)!r}")
    return faults


def _constraint(schema: Schema, item: Field, event_time: object) -> Constraint:
    found = Constraint.of(schema.name, item)
    if item.name == event_time and found.not_after_ms is None:
        return replace(found, not_after_ms=NOT_AFTER_MS)
    return found


def _check_role(schema: Schema, role: str, name: object) -> None:
    if name not in schema.names:
        raise SchemaError(f"{schema.name}: millstream.{role} is {name!r}, which is no field")
    item = schema[str(name)]
    if item.nullable:
        raise SchemaError(f"{schema.name}: field {name!r} is the {role} and must not be nullable")
    if role == "event_time" and (item.kind, item.logical_type) != ("long", "timestamp-millis"):
        raise SchemaError(f"{schema.name}: field {name!r} is the event time: a long of logicalType timestamp-millis")
    if role != "event_time" and item.kind not in _TEXTUAL:
        raise SchemaError(f"{schema.name}: field {name!r} is the {role}: an int, long or string")
