"""One field of a flat Avro record: what Avro JSON may say of it, and its canonical form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, cast, get_args

Kind = Literal["int", "long", "float", "double", "boolean", "string", "bytes", "enum"]
KINDS: Final[frozenset[str]] = frozenset(get_args(Kind))

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_INT_RANGE: Final = {"int": 1 << 31, "long": 1 << 63}


class SchemaError(ValueError):
    """A schema cannot be used here; the text names the schema, the field and what is allowed."""


class Missing(Enum):
    """The type of `MISSING`, which tells "no default" from "default null"."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING

Default: TypeAlias = int | float | bool | str | bytes | Missing | None


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a flat record.

    Parameters
    ----------
    name : str
        Field name.
    kind : str
        Avro type without its null branch.
    nullable, null_first : bool
        Whether the type is a union with null, and whether null is its first branch.
    default : int, float, bool, str, bytes, None or MISSING
        Used by a reader when the writer has no such field.
    enum_name, symbols, enum_default
        Full name, symbols and fallback symbol of an enum.
    aliases : tuple of str
        Writer's field names that this reader field also answers to.
    logical_type : str or None
        Annotation only; the wire and the column hold the underlying type.
    attributes : mapping
        ``doc`` and every further attribute as written.
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


def names_in(value: Any, what: str) -> list[str]:
    """Return a list of names read from JSON, where anything may stand."""
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise SchemaError(f"{what} must be a list of names, found {value!r}")
    return value


def full_name(name: str, namespace: Any) -> str:
    if namespace is not None and not isinstance(namespace, str):
        raise SchemaError(f"{name}: namespace must be text, found {namespace!r}")
    full = name if "." in name or not namespace else f"{namespace}.{name}"
    if not all(_NAME.match(part) for part in full.split(".")):
        raise SchemaError(f"{full!r} is not an Avro name: letters, digits and _, parts joined by dots")
    return full


def parse_field(record: str, namespace: str, item: Mapping[str, Any], enums: dict[str, Field]) -> Field:
    name = item.get("name")
    if not isinstance(name, str) or not _NAME.match(name):
        raise SchemaError(f"{record}: {name!r} is not a field name")
    where = f"{record}: field {name!r}"
    kind: Any = item.get("type")
    nullable, null_first = False, True
    if isinstance(kind, list):
        if len(kind) != 2 or kind.count("null") != 1:
            raise SchemaError(f"{where} is a union {kind!r}; only unions of one type and null are supported")
        nullable, null_first = True, kind[0] == "null"
        kind = kind[1] if null_first else kind[0]
    base = _base(where, name, namespace, kind, enums)
    aliases = names_in(item.get("aliases", []), f"{where}: aliases")
    parsed = replace(
        base,
        nullable=nullable,
        null_first=null_first,
        aliases=tuple(aliases),
        attributes={k: v for k, v in item.items() if k not in {"name", "type", "default", "aliases"}},
    )
    return replace(parsed, default=_default(where, parsed, item["default"])) if "default" in item else parsed


def _base(where: str, name: str, namespace: str, kind: Any, enums: dict[str, Field]) -> Field:
    """Return a field holding only what the type itself says."""
    spec: Mapping[str, Any] = kind if isinstance(kind, Mapping) else {"type": kind}
    tag = spec.get("type")
    if isinstance(tag, str) and tag in KINDS - {"enum"}:
        return Field(name, cast("Kind", tag), logical_type=spec.get("logicalType"))
    if tag == "enum":
        symbols = names_in(spec.get("symbols"), f"{where}: enum symbols")
        if not isinstance(spec.get("name"), str) or not symbols:
            raise SchemaError(f"{where} is an enum that lacks a name or symbols")
        if len(set(symbols)) != len(symbols) or not all(_NAME.match(symbol) for symbol in symbols):
            raise SchemaError(f"{where}: enum symbols must be distinct names, found {symbols!r}")
        fallback = spec.get("default")
        if fallback is not None and fallback not in symbols:
            raise SchemaError(f"{where}: enum default {fallback!r} is none of {symbols!r}")
        full = full_name(spec["name"], spec.get("namespace", namespace))
        enums[full] = Field(name, "enum", enum_name=full, symbols=tuple(symbols), enum_default=fallback)
        return enums[full]
    if isinstance(tag, str) and full_name(tag, namespace) in enums:
        return replace(enums[full_name(tag, namespace)], name=name)
    shown = tag if isinstance(tag, str) else json.dumps(tag)
    raise SchemaError(f"{where} has type {shown}; supported: {', '.join(sorted(KINDS))}, alone or in a union with null")


def _default(where: str, item: Field, value: Any) -> Default:
    if value is None and item.nullable:
        return None
    if item.kind == "boolean" and isinstance(value, bool):
        return value
    if item.kind in {"int", "long", "float", "double"} and isinstance(value, int | float):
        limit = _INT_RANGE.get(item.kind)
        if limit is None and not isinstance(value, bool):
            return float(value)
        if type(value) is int and limit is not None and -limit <= value < limit:
            return value
    if isinstance(value, str):
        if item.kind == "string" or value in item.symbols:
            return value
        if item.kind == "bytes" and all(ord(c) < 256 for c in value):
            return value.encode("latin-1")  # the specification writes bytes 0-255 as code points 0-255
    raise SchemaError(f"{where}: default {value!r} is no {item.kind}{' or null' if item.nullable else ''}")


def canonical_type(item: Field, seen: set[str]) -> str:
    text = f'"{item.kind}"'
    if item.kind == "enum":
        symbols = ",".join(f'"{symbol}"' for symbol in item.symbols)
        text = f'{{"name":"{item.enum_name}","type":"enum","symbols":[{symbols}]}}'
        if item.enum_name in seen:
            text = f'"{item.enum_name}"'
        seen.add(item.enum_name)
    if not item.nullable:
        return text
    return f'["null",{text}]' if item.null_first else f'[{text},"null"]'


def field_json(item: Field, seen: set[str]) -> dict[str, Any]:
    kind: Any = item.kind
    if item.kind == "enum":
        kind = {"type": "enum", "name": item.enum_name, "symbols": list(item.symbols)}
        if item.enum_default is not None:
            kind["default"] = item.enum_default
        if item.enum_name in seen:
            kind = item.enum_name
        seen.add(item.enum_name)
    elif item.logical_type is not None:
        # precision and scale of decimals are not kept: a column holds the underlying bytes
        kind = {"type": item.kind, "logicalType": item.logical_type}
    if item.nullable:
        kind = ["null", kind] if item.null_first else [kind, "null"]
    body: dict[str, Any] = {"name": item.name, "type": kind}
    if item.default is not MISSING:
        body["default"] = item.default.decode("latin-1") if isinstance(item.default, bytes) else item.default
    if item.aliases:
        body["aliases"] = list(item.aliases)
    return {**body, **item.attributes}
