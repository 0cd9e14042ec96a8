"""Avro logical types: which are supported, their validation, and conversion from writer to reader.

Avro's schema resolution compares the underlying types only [1]_, so that microseconds would be read as milliseconds.
Here units are converted where that is exact, and what means something else is refused. As the specification asks, a
logical type that is unknown or does not fit its underlying type is ignored in a writer's schema; a contract with one
that does not fit is refused.

References
----------
.. [1] Apache Avro 1.12 specification, "Logical Types" and "Schema Resolution".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from millstream.core.avro.schema_field import Field

UNDERLYING: Final[Mapping[str, tuple[str, ...]]] = {
    "decimal": ("bytes", "fixed"),
    "big-decimal": ("bytes",),
    "uuid": ("string", "fixed"),
    "date": ("int",),
    "time-millis": ("int",),
    "time-micros": ("long",),
    "timestamp-millis": ("long",),
    "timestamp-micros": ("long",),
    "timestamp-nanos": ("long",),
    "local-timestamp-millis": ("long",),
    "local-timestamp-micros": ("long",),
    "local-timestamp-nanos": ("long",),
    "duration": ("fixed",),
}
"""Every logical type of Avro 1.12, and the types it may annotate."""

_UNIT_NS: Final = {"millis": 1_000_000, "micros": 1_000, "nanos": 1}
_UNIT_NAMES: Final = {"ms": 1_000_000, "us": 1_000, "µs": 1_000, "ns": 1, "s": 1_000_000_000}
_SIZES: Final = {"uuid": 16, "duration": 12}


class Scale(NamedTuple):
    """What turns a writer's number into the reader's: times ``factor``, or divided by it, which must leave nothing."""

    factor: int = 1
    divide: bool = False


def ill_used(item: Field) -> str | None:
    """Return why a known logical type does not fit the field's type, or None."""
    name = item.logical_type
    if name is None or name not in UNDERLYING:
        return None
    if item.kind not in UNDERLYING[name]:
        return f"logicalType {name} needs {' or '.join(UNDERLYING[name])}, found {item.kind}"
    size = _SIZES.get(name)
    if item.kind == "fixed" and size is not None and item.size != size:
        return f"logicalType {name} needs a fixed of size {size}, found {item.size}"
    return _ill_used_decimal(item) if name == "decimal" else None


def _ill_used_decimal(item: Field) -> str | None:
    precision, scale = item.type_attributes.get("precision"), item.type_attributes.get("scale", 0)
    if type(precision) is not int or precision < 1:
        return f"decimal needs a precision, a whole number from 1; found {precision!r}"
    if type(scale) is not int or not 0 <= scale <= precision:
        return f"decimal needs a scale from 0 to its precision {precision}; found {scale!r}"
    most = len(str((1 << (8 * item.size - 1)) - 1)) - 1 if item.size else 0
    if item.kind == "fixed" and precision > most:
        return f"a fixed of size {item.size} holds decimals of precision {most}, found {precision}"
    return None


def meant(item: Field) -> str | None:
    """Return the logical type that counts: None for one that is unknown or ill used."""
    return item.logical_type if item.logical_type in UNDERLYING and ill_used(item) is None else None


def type_name(item: Field) -> str:
    """Return a field's type for messages, logical type first."""
    name = meant(item)
    if name == "decimal":
        return f"decimal({item.type_attributes['precision']},{item.type_attributes.get('scale', 0)})"
    if name is None and _unit_ns(item, None) is not None:
        return f"{item.kind} in {item.attributes['unit']}"
    return name or (f"{item.kind} {item.enum_name}" if item.enum_name else item.kind)


def scale(source: Field, target: Field) -> Scale | None:
    """Return how the writer's number becomes the reader's, or None where the types mean different things.

    A field without a logical type takes the other's number as it is, and gives its own so, unless its ``unit`` says
    otherwise.
    """
    wrote, reads = meant(source), meant(target)
    if wrote is None or reads is None:
        if wrote in {"decimal", "big-decimal"} and target.kind == "string":
            return None
        given, wanted = _unit_ns(source, wrote), _unit_ns(target, reads)
        return None if given != wanted and None not in (given, wanted) and wrote != reads else Scale()
    if wrote == "decimal" and reads == "decimal":
        before, after = source.type_attributes, target.type_attributes
        same = before.get("scale", 0) == after.get("scale", 0) and before["precision"] <= after["precision"]
        return Scale() if same else None
    if wrote == reads:
        return Scale()
    family, _, unit = wrote.rpartition("-")
    if family != reads.rpartition("-")[0] or unit not in _UNIT_NS:
        return None
    given_ns, wanted_ns = _UNIT_NS[unit], _UNIT_NS[reads.rpartition("-")[2]]
    return Scale(wanted_ns // given_ns, divide=True) if wanted_ns > given_ns else Scale(given_ns // wanted_ns)


def _unit_ns(item: Field, logical: str | None) -> int | None:
    if logical is not None:
        return _UNIT_NS.get(logical.rpartition("-")[2])
    unit = item.attributes.get("unit")
    return _UNIT_NAMES.get(unit) if isinstance(unit, str) else None
