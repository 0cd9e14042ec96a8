"""One field of an Avro record: what Avro JSON may say of it, and its canonical form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from millstream.core.avro.schema_type import SchemaError, canonical, described, is_name, names_in, normalized

Kind = Literal["int", "long", "float", "double", "boolean", "string", "bytes", "enum", "fixed", "other"]
KINDS: Final[frozenset[str]] = frozenset(get_args(Kind)) - {"other"}
"""What a column can hold. A field of kind ``other`` has a type of its own in ``shape``; a reader skips it."""

_INT_RANGE: Final = {"int": 1 << 31, "long": 1 << 63}
_ALREADY: Final = frozenset({"type", "name", "symbols", "size", "default", "logicalType"})


class Missing(Enum):
    """The type of `MISSING`, which distinguishes "no default" from "default null"."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING

Default: TypeAlias = int | float | bool | str | bytes | Missing | None


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record.

    Parameters
    ----------
    name : str
        Field name.
    kind : str
        Avro type without its null branch; ``other`` for what no column can hold.
    nullable, null_first : bool
        Whether the type is a union with null, and whether null is its first branch.
    default : int, float, bool, str, bytes, None or MISSING
        Used by a reader when the writer has no such field.
    enum_name, symbols, enum_default
        Full name (of an enum or fixed), symbols and fallback symbol of an enum.
    aliases : tuple of str
        Writer's field names that this reader field also answers to.
    logical_type : str or None
        As written; the wire and the column hold the underlying type. See `millstream.core.avro.logical_type`.
    attributes : mapping
        ``doc`` and every further attribute of the field as written.
    size : int
        Of a fixed, in bytes.
    type_attributes : mapping
        Every further attribute of the type as written, such as precision and scale.
    shape : any
        The normalized type of a field of kind ``other``.
    """

    name: str
    kind: Kind
    nullable: bool = False
    null_first: bool = True
    default: Default = MISSING
    enum_name: str = ""
    symbols: tuple[str, ...] = ()
    enum_default: str | None = None
    aliases: tuple[str, ...] = ()
    logical_type: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict, hash=False)
    size: int = 0
    type_attributes: Mapping[str, Any] = field(default_factory=dict, hash=False)
    shape: Any = field(default=None, hash=False)


def parse_field(record: str, namespace: str, item: Mapping[str, Any], names: dict[str, Any]) -> Field:
    """Read a field; named types it defines are added to ``names``."""
    name = item.get("name")
    if not is_name(name):
        raise SchemaError(f"{record}: {name!r} is not a field name")
    where = f"{record}: field {name!r}"
    shape = normalized(where, item.get("type"), namespace, names)
    parsed = replace(
        field_of(str(name), shape, names),
        aliases=tuple(names_in(item.get("aliases", []), f"{where}: aliases")),
        attributes={k: v for k, v in item.items() if k not in {"name", "type", "default", "aliases"}},
    )
    if "default" not in item:
        return parsed
    if parsed.kind == "other":
        return replace(parsed, attributes={**parsed.attributes, "default": item["default"]})
    return replace(parsed, default=_default(where, parsed, item["default"]))


def field_of(name: str, shape: Any, names: Mapping[str, Any]) -> Field:
    """Return the field of a normalized type, without attributes and default of its own."""
    inner, union = shape, {}
    if isinstance(shape, list) and len(shape) == 2 and "null" in shape:
        union = {"nullable": True, "null_first": shape[0] == "null"}
        inner = shape[1] if union["null_first"] else shape[0]
    spec = names.get(inner, {"type": inner}) if isinstance(inner, str) else inner
    if isinstance(spec, list) or spec["type"] not in KINDS:
        return Field(name, "other", shape=shape)
    logical = spec.get("logicalType")
    return Field(
        name,
        cast("Kind", spec["type"]),
        enum_name=spec.get("name", "") if spec["type"] in {"enum", "fixed"} else "",
        symbols=tuple(spec.get("symbols", ())) if spec["type"] == "enum" else (),
        enum_default=spec.get("default") if spec["type"] == "enum" else None,
        logical_type=logical if isinstance(logical, str) else None,
        size=spec.get("size", 0) if spec["type"] == "fixed" else 0,
        type_attributes=_further(spec, logical),
        **union,
    )


def _further(spec: Mapping[str, Any], logical: Any) -> dict[str, Any]:
    named = spec["type"] in {"enum", "fixed"}
    taken = _ALREADY if named else frozenset({"type", "logicalType"})
    kept = {k: v for k, v in spec.items() if k not in taken}
    # What is no text is no logical type, and is ignored like any unknown attribute.
    return kept if logical is None or isinstance(logical, str) else {**kept, "logicalType": logical}


def unsupported(record: str, item: Field) -> str | None:
    """Return why no column can hold a field, or None if one can."""
    if item.kind != "other":
        return None
    return (
        f"{record}: field {item.name!r} has type {described(item.shape)}; supported: "
        f"{', '.join(sorted(KINDS))}, alone or in a union with null"
    )


def _default(where: str, item: Field, value: Any) -> Default:
    if value is None and item.nullable:
        return None
    if item.kind == "boolean" and isinstance(value, bool):
        return value
    if item.kind in {"int", "long", "float", "double"} and isinstance(value, int | float):
        limit = _INT_RANGE.get(item.kind)
        if limit is None and not isinstance(value, bool) and float(value) == value:
            return float(value)
        if type(value) is int and limit is not None and -limit <= value < limit:
            return value
    if isinstance(value, str):
        if item.kind == "string" or value in item.symbols:
            return value
        latin = all(ord(c) < 256 for c in value)  # the specification writes bytes 0-255 as code points 0-255
        if latin and (item.kind == "bytes" or (item.kind == "fixed" and len(value) == item.size)):
            return value.encode("latin-1")
    raise SchemaError(f"{where}: default {value!r} is no {item.kind}{' or null' if item.nullable else ''}")


def type_json(item: Field, seen: set[str]) -> Any:
    """Return the type as Avro JSON; names in ``seen`` are referred to."""
    if item.kind == "other":
        canonical(item.shape, seen)
        return item.shape
    kind: Any = {"type": item.kind, **item.type_attributes}
    if item.logical_type is not None:
        kind["logicalType"] = item.logical_type
    if item.enum_name:
        kind["name"] = item.enum_name
        if "." not in item.enum_name:
            kind["namespace"] = ""
        if item.kind == "enum":
            kind["symbols"] = list(item.symbols)
            kind |= {} if item.enum_default is None else {"default": item.enum_default}
        else:
            kind["size"] = item.size
        if item.enum_name in seen:
            kind = item.enum_name
        seen.add(item.enum_name)
    elif len(kind) == 1:
        kind = item.kind
    if not item.nullable:
        return kind
    return ["null", kind] if item.null_first else [kind, "null"]


def canonical_type(item: Field, seen: set[str]) -> str:
    """Return the Parsing Canonical Form of a field's type."""
    return canonical(item.shape if item.kind == "other" else type_json(item, set()), seen)


def field_json(item: Field, seen: set[str]) -> dict[str, Any]:
    """Return the field as Avro JSON, with every attribute."""
    body: dict[str, Any] = {"name": item.name, "type": type_json(item, seen)}
    if item.default is not MISSING:
        body["default"] = item.default.decode("latin-1") if isinstance(item.default, bytes) else item.default
    if item.aliases:
        body["aliases"] = list(item.aliases)
    return {**body, **item.attributes}
