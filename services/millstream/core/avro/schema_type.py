"""Any Avro type as normalized JSON: names in full, each defined where it first occurs.

A schema read here may hold types that no column can hold; a reader skips their values. What a field of a contract may
be is decided in `millstream.core.avro.schema_field`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
NAMED: Final = frozenset({"enum", "fixed", "record"})
_INNER: Final = {"array": "items", "map": "values"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_LARGEST_FIXED: Final = 1 << 30


class SchemaError(ValueError):
    """A schema cannot be used here; the text names the schema, the field and what is allowed.

    Parameters
    ----------
    text : str
        The message.
    field : str
        The reader's field that is at fault, ``""`` where it is not one field.
    """

    def __init__(self, text: str, field: str = "") -> None:
        super().__init__(text)
        self.field = field


def is_name(text: object) -> bool:
    """Return whether ``text`` is an Avro name without a namespace: letters, digits and _, no digit first."""
    return isinstance(text, str) and _NAME.match(text) is not None


def as_name(text: str) -> str:
    """Return ``text`` as an Avro name: every other character becomes _, and a leading digit is preceded by one.

    Examples
    --------
    >>> as_name("fraud-prod"), as_name("2024.events")
    ('fraud_prod', '_2024_events')
    """
    name = re.sub(r"[^A-Za-z0-9_]", "_", text)
    return name if is_name(name) else f"_{name}"


def names_in(value: Any, what: str) -> list[str]:
    """Return a list of names read from JSON, where anything may stand."""
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise SchemaError(f"{what} must be a list of names, found {value!r}")
    return value


def full_name(name: str, namespace: Any) -> str:
    """Return a name with its namespace, refusing what is no Avro name."""
    if namespace is not None and not isinstance(namespace, str):
        raise SchemaError(f"{name}: namespace must be text, found {namespace!r}")
    full = name if "." in name or not namespace else f"{namespace}.{name}"
    if not all(is_name(part) for part in full.split(".")):
        raise SchemaError(f"{full!r} is not an Avro name: letters, digits and _, parts joined by dots")
    return full


def normalized(where: str, kind: Any, namespace: str, names: dict[str, Any]) -> Any:
    """Return a type with names in full; what it defines is added to ``names``.

    Parameters
    ----------
    where : str
        The record and field, for messages.
    kind : any JSON
        The type as written.
    namespace : str
        Of names without one.
    names : dict of str to definition
        Named types defined so far, by full name.

    Raises
    ------
    SchemaError
        If it is no Avro type.
    """
    if isinstance(kind, list):
        branches = [normalized(where, each, namespace, names) for each in kind]
        tags = [_tag(each, names) for each in branches]
        if "union" in tags or len(set(tags)) < len(tags):
            raise SchemaError(f"{where} is a union {_shown(kind)}; a union holds neither unions nor one type twice")
        return branches
    spec: Mapping[str, Any] = kind if isinstance(kind, Mapping) else {"type": kind}
    tag = spec.get("type")
    if isinstance(tag, Mapping | list):
        return normalized(where, tag, namespace, names)
    if isinstance(tag, str) and tag in PRIMITIVES:
        return tag if len(spec) == 1 else dict(spec)
    if isinstance(tag, str) and tag in _INNER:
        inner = _INNER[tag]
        if inner not in spec:
            raise SchemaError(f"{where} has type {tag} without {inner!r}")
        return {**spec, inner: normalized(where, spec[inner], namespace, names)}
    if isinstance(tag, str) and tag in {*NAMED, "error"}:
        return _definition(where, spec, namespace, names)
    if isinstance(tag, str):
        for full in (full_name(tag, namespace), tag):
            if full in names:
                return full
    raise SchemaError(f"{where} has type {_shown(tag)}, which is neither an Avro type nor a name defined before")


def _definition(where: str, spec: Mapping[str, Any], namespace: str, names: dict[str, Any]) -> dict[str, Any]:
    tag, name = spec["type"], spec.get("name")
    if not isinstance(name, str):
        raise SchemaError(f"{where} is {tag} without a name")
    full = full_name(name, spec.get("namespace", namespace))
    known = names.get(full)
    if known is not None and known.get("fields", ()) is None:
        raise SchemaError(f"{where} defines {full} again, inside itself")
    made: dict[str, Any] = {**{k: v for k, v in spec.items() if k != "namespace"}, "name": full}
    if tag == "enum":
        symbols = names_in(spec.get("symbols"), f"{where}: enum symbols")
        if not symbols or len(set(symbols)) != len(symbols) or not all(is_name(symbol) for symbol in symbols):
            raise SchemaError(f"{where}: enum symbols must be distinct names, found {symbols!r}")
        fallback = spec.get("default")
        if fallback is not None and fallback not in symbols:
            raise SchemaError(f"{where}: enum default {fallback!r} is none of {symbols!r}")
    elif tag == "fixed":
        size = spec.get("size")
        if type(size) is not int or not 0 <= size <= _LARGEST_FIXED:
            raise SchemaError(f"{where} is fixed of size {size!r}; a size is a whole number of bytes")
    else:
        names[full] = open_record(full)
        inside = full.rpartition(".")[0]
        made |= {"type": "record", "fields": fields_of(full, inside, spec.get("fields"), names)}
    if known is not None and canonical(known, set()) != canonical(made, set()):
        raise SchemaError(f"{where} defines {full} again, as another type")
    names[full] = made
    return made


def open_record(name: str) -> dict[str, Any]:
    """Return what stands for a record while its fields are read, which may refer to it."""
    return {"type": "record", "name": name, "fields": None}


def fields_of(record: str, namespace: str, items: Any, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a nested record's fields, their types normalized."""
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise SchemaError(f"{record}: fields must be a list of objects")
    found = []
    for item in items:
        if not is_name(item.get("name")):
            raise SchemaError(f"{record}: {item.get('name')!r} is not a field name")
        where = f"{record}: field {item['name']!r}"
        found.append({**item, "type": normalized(where, item.get("type"), namespace, names)})
    return found


def _tag(kind: Any, names: Mapping[str, Any]) -> str:
    """Return what a union may hold once: the type's name, or its kind where it has none."""
    if isinstance(kind, list):
        return "union"
    if isinstance(kind, str):
        return kind
    return str(kind["name"] if kind["type"] in NAMED else kind["type"])


def canonical(kind: Any, seen: set[str]) -> str:  # noqa: PLR0911 - one per Avro type
    """Return the Parsing Canonical Form of a normalized type; names in ``seen`` are referred to."""
    if isinstance(kind, list):
        return f"[{','.join(canonical(each, seen) for each in kind)}]"
    if isinstance(kind, str):
        return f'"{kind}"'
    tag = kind["type"]
    if tag in PRIMITIVES:
        return f'"{tag}"'
    if tag in _INNER:
        inner = _INNER[tag]
        return f'{{"type":"{tag}","{inner}":{canonical(kind[inner], seen)}}}'
    if kind["name"] in seen:
        return f'"{kind["name"]}"'
    seen.add(kind["name"])
    head = f'{{"name":"{kind["name"]}","type":"{tag}"'
    if tag == "enum":
        return f"{head},{_list('symbols', [json.dumps(symbol) for symbol in kind['symbols']])}}}"
    if tag == "fixed":
        return f'{head},"size":{kind["size"]}}}'
    fields = [f'{{"name":"{item["name"]}","type":{canonical(item["type"], seen)}}}' for item in kind["fields"]]
    return f"{head},{_list('fields', fields)}}}"


def _list(name: str, parts: list[str]) -> str:
    return f'"{name}":[{",".join(parts)}]'


def definitions_in(kind: Any) -> dict[str, Any]:
    """Return every named type that a normalized type defines, by full name."""
    found: dict[str, Any] = {}
    waiting = [kind]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list):
            waiting += each
        elif isinstance(each, Mapping):
            if each["type"] in NAMED:
                found[each["name"]] = each
            if each["type"] == "record":
                waiting += [item["type"] for item in each["fields"]]
            elif each["type"] in _INNER:
                waiting.append(each[_INNER[each["type"]]])
    return found


def described(kind: Any) -> str:
    """Return a normalized type in words.

    Examples
    --------
    >>> described(["null", {"type": "array", "items": "string"}])
    'a union of null and array'
    """
    if isinstance(kind, list):
        parts = [described(each) for each in kind] or ["nothing"]
        return "a union of " + (f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0])
    if isinstance(kind, str):
        return kind
    if kind["type"] in NAMED:
        return f"{kind['type']} {kind['name']}"
    return str(kind["logicalType"] if isinstance(kind.get("logicalType"), str) else kind["type"])


def _shown(kind: Any) -> str:
    return kind if isinstance(kind, str) else json.dumps(kind)
