"""Compatibility of two versions of a contract on one topic, and the rule that is broken if they are not.

Beyond Avro's own schema resolution: constraints count (a stricter bound dead-letters records that were fine), and so do
units, logical types, and the fields that key and identify records, which resolution passes over in silence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from millstream.core.avro.resolution import mismatches, pair
from millstream.core.avro.schema import MISSING
from millstream.core.constraint import Constraint
from millstream.core.contracts import Contract

Mode = Literal["BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"]
MODES: tuple[str, ...] = get_args(Mode)

_EXACT_TO = {("int", "float"): 1 << 24, ("long", "float"): 1 << 24, ("long", "double"): 1 << 53}
"""By writer's and reader's type: the largest magnitude of an integer up to which all are exact."""


@dataclass(frozen=True, slots=True)
class Incompatibility:
    """One reason why a change is refused: a stable rule, the field (or ``""``), and a sentence."""

    rule: str
    field: str
    detail: str


def breaking_changes(old: Contract, new: Contract, mode: Mode) -> list[Incompatibility]:
    """Return what ``new`` breaks, empty if nothing.

    Parameters
    ----------
    old, new : Contract
        An earlier version and the offered one. An earlier generation is never broken.
    mode : str
        ``BACKWARD``: today's readers accept yesterday's records. ``FORWARD``: yesterday's readers accept today's.
        ``FULL``: both. Which versions ``old`` goes through is the caller's part of ``_TRANSITIVE``.
    """
    if new.generation > old.generation:
        return []
    found = list(_identity(old, new))
    if mode.startswith(("BACKWARD", "FULL")):
        found += _refused(old, new, "yesterday's records")
    if mode.startswith(("FORWARD", "FULL")):
        found += _refused(new, old, "today's records, to yesterday's readers")
    return list(dict.fromkeys(found))


def _identity(old: Contract, new: Contract) -> Iterator[Incompatibility]:
    if new.generation < old.generation:
        yield Incompatibility("generation", "", f"generation went back from {old.generation} to {new.generation}")
    pairs, _ = pair(old.schema, new.schema)
    for role in ("key", "event_id", "event_time"):
        before, after = getattr(old, role), getattr(new, role)
        renamed = before in pairs and pairs[before].name == after
        if before != after and not renamed:
            detail = f"the {role} was {before or 'none'!r} and is now {after or 'none'!r}"
            yield Incompatibility(role.replace("_", "-"), after, detail)
    for source in old.schema.fields:
        target = pairs.get(source.name)
        if target is None:
            continue
        if source.logical_type != target.logical_type:
            detail = f"logicalType was {source.logical_type or 'none'} and is now {target.logical_type or 'none'}"
            yield Incompatibility("logical-type", target.name, detail)
        unit, now = source.attributes.get("unit"), target.attributes.get("unit")
        if unit is not None and unit != now:
            yield Incompatibility("unit", target.name, f"the unit was {unit} and is now {now or 'none'}")


def _refused(writer: Contract, reader: Contract, whose: str) -> Iterator[Incompatibility]:
    for rule, field, sentence in mismatches(writer.schema, reader.schema):
        # Nulls may still be read, but not values: of two contracts that is no smaller break.
        yield Incompatibility("type" if rule == "union" else rule, field, f"{sentence} ({whose})")
    pairs, missing = pair(writer.schema, reader.schema)
    held = {constraint.field: constraint for constraint in reader.constraints}
    given = {constraint.field: constraint for constraint in writer.constraints}
    for source in writer.schema.fields:
        target = pairs.get(source.name)
        if target is not None:
            yield from _tightened(given[source.name], held[target.name], whose)
            most = _EXACT_TO.get((source.kind, target.kind))
            if most is not None and not _within(given[source.name], most):
                yield Incompatibility(
                    "type",
                    target.name,
                    f"{target.kind} holds integers exactly only from -{most} to {most}; {whose} with others would be "
                    f"dead letters. Keep {source.kind}, or bound the values with minimum and maximum",
                )
            real = source.kind in {"float", "double"}
            if real and held[target.name].finite and not given[source.name].finite:
                yield Incompatibility("finite", target.name, f"NaN and infinities are no longer allowed of {whose}")
    for item in missing:
        if item.default is not MISSING and item.name in {reader.key, reader.event_id, reader.event_time}:
            detail = f"{item.name!r} identifies records but {whose} would all get its default"
            yield Incompatibility("default-identity", item.name, detail)


def _within(item: Constraint, most: int) -> bool:
    lower, upper = _lower(item), _upper(item)
    return lower is not None and upper is not None and lower[0] >= -most and upper[0] <= most


def _tightened(old: Constraint, new: Constraint, whose: str) -> Iterator[Incompatibility]:
    """Yield each constraint by which ``new`` turns away a value that ``old`` let pass."""
    name = new.field
    lower, upper = _lower(new), _upper(new)
    if lower is not None and ((before := _lower(old)) is None or before < lower):
        yield Incompatibility(
            "range", name, f"the lower bound is stricter than for {whose}: {_bounds(old)} to {_bounds(new)}"
        )
    if upper is not None and ((above := _upper(old)) is None or above > upper):
        yield Incompatibility(
            "range", name, f"the upper bound is stricter than for {whose}: {_bounds(old)} to {_bounds(new)}"
        )
    for attribute, rule in (("max_length", "max-length"), ("not_older_than_ms", "age"), ("not_after_ms", "age")):
        was, now = getattr(old, attribute), getattr(new, attribute)
        if now is not None and (was is None or was > now):
            yield Incompatibility(rule, name, f"{attribute} is stricter than for {whose}: {_or_none(was)} to {now}")
    if new.allowed is not None and (old.allowed is None or not set(old.allowed) <= set(new.allowed)):
        lost = "everything else" if old.allowed is None else sorted(set(old.allowed) - set(new.allowed), key=repr)
        yield Incompatibility("allowed", name, f"no longer allowed of {whose}: {lost}")
    if new.pattern is not None and new.pattern != old.pattern:
        yield Incompatibility(
            "pattern", name, f"the pattern changed against {whose}: {_or_none(old.pattern)} to {new.pattern}"
        )


def _lower(item: Constraint) -> tuple[float, bool] | None:
    """Return the tighter lower bound as (value, exclusive), which orders by strictness."""
    bounds = [(item.minimum, False), (item.exclusive_minimum, True)]
    return max(((value, strict) for value, strict in bounds if value is not None), default=None)


def _upper(item: Constraint) -> tuple[float, bool] | None:
    """Return the tighter upper bound as (value, inclusive), which orders by laxity."""
    bounds = [(item.maximum, True), (item.exclusive_maximum, False)]
    return min(((value, lax) for value, lax in bounds if value is not None), default=None)


def _bounds(item: Constraint) -> str:
    texts = [f"{name} {text}" for name, text in item.texts.items() if name.endswith("imum")]
    return " and ".join(texts) or "none"


def _or_none(value: object) -> str:
    return "none" if value is None else str(value)
