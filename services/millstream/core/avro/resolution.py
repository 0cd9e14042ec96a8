"""Avro schema resolution: which writer schemas a reader can read, and why not the others.

Fields match by name, else by the reader's aliases; a field the writer lacks takes the reader's default; what the reader
lacks is skipped, whatever its type; numbers widen (int, long, float, double) where the value stays exact; string and
bytes interchange; logical types are converted where that is exact; enum symbols the reader lacks become the reader
enum's default. Of a wider union each record is read by the branch it holds. What a single record can be at fault for (a
null, a symbol, a branch, a number) is a fault of that record only.

References
----------
.. [1] Apache Avro 1.12 specification, "Schema Resolution".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from millstream.core.avro.logical_type import Scale, scale, type_name
from millstream.core.avro.schema import Field, Missing, Schema
from millstream.core.avro.schema_field import field_of
from millstream.core.avro.schema_type import described

READS: Final = {
    "int": {"int", "long", "float", "double"},
    "long": {"long", "float", "double"},
    "float": {"float", "double"},
    "double": {"double"},
    "boolean": {"boolean"},
    "string": {"string", "bytes"},
    "bytes": {"string", "bytes"},
    "enum": {"enum"},
    "fixed": {"fixed"},
    "other": frozenset[str](),
}
"""For each writer's kind, the reader's kinds it may be read as."""


def same_record(writer: Schema, reader: Schema) -> bool:
    """Return whether the reader may read this writer's record by its name: equal unqualified names, or an alias."""
    return _short(writer.name) == _short(reader.name) or writer.name in reader.aliases


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def pair(writer: Schema, reader: Schema) -> tuple[dict[str, Field], list[Field]]:
    """Return the reader field of each writer field that has one, and the reader fields left to their defaults."""
    written = set(writer.names)
    pairs: dict[str, Field] = {item.name: item for item in reader.fields if item.name in written}
    missing: list[Field] = []
    for item in reader.fields:
        if item.name in written:
            continue
        source = next((alias for alias in item.aliases if alias in written and alias not in pairs), None)
        if source is None:
            missing.append(item)
        else:
            pairs[source] = item
    return pairs, missing


def reads_as(source: Field, target: Field) -> Scale | None:
    """Return how values of one type (no union) are read as the target's, or None if they are not."""
    found = scale(source, target)
    # The one narrowing that resolution allows here: time-micros is a long, time-millis an int.
    narrowed = found is not None and found.divide and (source.kind, target.kind) == ("long", "int")
    if target.kind not in READS[source.kind] and not narrowed:
        return None
    if source.enum_name and _short(source.enum_name) != _short(target.enum_name):
        return None
    return found if source.size == target.size else None


def branches(source: Field, names: Mapping[str, Any]) -> list[Field | None] | None:
    """Return each branch of a union as a field of its own, None for null; None if the field is no union."""
    if source.nullable:
        value = replace(source, nullable=False)
        return [None, value] if source.null_first else [value, None]
    if source.shape == "null":
        return [None]
    if not isinstance(source.shape, list):
        return None
    return [None if each == "null" else field_of(source.name, each, names) for each in source.shape]


def mismatches(writer: Schema, reader: Schema) -> Iterator[tuple[str, str, str]]:
    """Yield (rule, field, sentence) for everything that keeps ``reader`` from reading ``writer``'s records."""
    if not same_record(writer, reader):
        yield "record-name", "", f"the record is named {writer.name}, the reader's {reader.name} has no such alias"
    pairs, missing = pair(writer, reader)
    for item in missing:
        if isinstance(item.default, Missing):
            yield (
                "missing-default",
                item.name,
                f"the writer has no field {item.name!r} and the reader no default for it",
            )
    for source in writer.fields:
        target = pairs.get(source.name)
        if target is None:
            continue
        alternatives = branches(source, writer.definitions) or [source]
        yield from _mismatches(source, alternatives, target)


def _mismatches(source: Field, alternatives: list[Field | None], target: Field) -> Iterator[tuple[str, str, str]]:
    values = [each for each in alternatives if each is not None]
    unread = [each for each in values if reads_as(each, target) is None]
    null = None in alternatives
    what = described(source.shape) if source.kind == "other" else type_name(source)
    if len(unread) == len(values) and not (null and target.nullable):
        same_type = source.kind != "other" and target.kind in READS[source.kind] and not source.enum_name
        rule = "logical-type" if same_type else "type"
        yield rule, target.name, f"{what} cannot be read as {type_name(target)}"
        return
    if unread:
        lost = ", ".join(described(each.shape) if each.kind == "other" else type_name(each) for each in unread)
        yield "union", target.name, f"the writer may write {lost}, which cannot be read as {type_name(target)}"
    if null and not target.nullable:
        yield "null", target.name, "the writer may write null and the reader does not allow it"
    for each in values:
        lost_symbols = [symbol for symbol in each.symbols if symbol not in target.symbols]
        if lost_symbols and each not in unread and target.enum_default is None:
            sentence = f"symbols {lost_symbols} are unknown to the reader, which has no default"
            yield "enum-symbols", target.name, sentence


PER_RECORD: Final = frozenset({"enum-symbols", "null", "union"})
"""Rules of `mismatches` that only bite on records that hold such a value."""


def indistinguishable(before: Schema, now: Schema) -> list[str]:
    """Return the fields that mean other things in two schemas of one fingerprint, which does not cover logical types.

    One that had no logical type that counts, and now has one, is no such field.
    """
    return [
        old.name
        for old, new in zip(before.fields, now.fields, strict=False)
        if old.name == new.name and old.kind != "other" and reads_as(old, new) != Scale()
    ]
