"""Avro record schemas as frozen values: fields, canonical form, fingerprint.

A columnar batch holds primitives, enums, fixed, logical types over them, and unions of one of those with null. A
writer's schema may have fields of any other type, which a reader skips; a contract may not.

References
----------
.. [1] Apache Avro 1.12 specification, "Parsing Canonical Form", "Schema Fingerprints", "Single-object encoding".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Literal, NamedTuple

from millstream.core.avro.schema_field import (
    MISSING,
    Field,
    Kind,
    Missing,
    canonical_type,
    field_json,
    parse_field,
    type_json,
    unsupported,
)
from millstream.core.avro.schema_type import SchemaError, definitions_in, full_name, is_name, names_in, open_record

__all__ = ["MISSING", "Field", "Kind", "Missing", "Schema", "SchemaError", "SchemaId", "crc64"]

_CRC_EMPTY: Final = 0xC15D213AA4D7A795


class SchemaId(NamedTuple):
    """How a framed record identifies its writer's schema: a CRC-64 fingerprint (unsigned) or a registry id."""

    kind: Literal["fingerprint", "registry"]
    number: int


@dataclass(frozen=True)
class Schema:
    """An Avro record.

    Parameters
    ----------
    name : str
        Full name (namespace and name).
    fields : tuple of Field
        In wire order; names are unique.
    aliases : tuple of str
        Other full names of this record.
    attributes : mapping
        ``doc`` and every further attribute as written.
    """

    name: str
    fields: tuple[Field, ...]
    aliases: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        full_name(self.name, None)
        seen: set[str] = set()
        named: dict[str, tuple[object, ...]] = {}
        for item in self.fields:
            if not is_name(item.name):
                raise SchemaError(f"{self.name}: {item.name!r} is not a field name")
            if item.name in seen:
                raise SchemaError(f"{self.name}: field {item.name!r} is there twice; field names must be unique")
            seen.add(item.name)
            what = (item.kind, item.symbols, item.size)
            if item.enum_name and named.setdefault(item.enum_name, what) != what:
                raise SchemaError(
                    f"{self.name}: field {item.name!r} defines {item.kind} {item.enum_name} again as another type"
                )

    @staticmethod
    def parse(source: str | Mapping[str, Any]) -> Schema:
        """Read a schema from Avro JSON.

        Raises
        ------
        SchemaError
            If it is no JSON or no Avro record.
        """
        try:
            return Schema._parse(json.loads(source) if isinstance(source, str) else source)
        except json.JSONDecodeError as error:
            raise SchemaError(f"schema is not JSON: {error}") from error
        except RecursionError as error:
            raise SchemaError("schema is nested too deeply") from error

    @staticmethod
    def _parse(source: Any) -> Schema:
        if not isinstance(source, Mapping) or source.get("type") != "record":
            raise SchemaError("schema must be an Avro record: an object with type, name and fields")
        raw_name = source.get("name")
        if not isinstance(raw_name, str):
            raise SchemaError("schema has no name")
        name = full_name(raw_name, source.get("namespace"))
        items = source.get("fields")
        if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
            raise SchemaError(f"{name}: fields must be a list of objects")
        names: dict[str, Any] = {name: open_record(name)}
        namespace = name.rpartition(".")[0]
        return Schema(
            name,
            tuple(parse_field(name, namespace, item, names) for item in items),
            tuple(full_name(alias, namespace) for alias in names_in(source.get("aliases", []), f"{name}: aliases")),
            {k: v for k, v in source.items() if k not in {"type", "name", "namespace", "fields", "aliases"}},
        )

    @cached_property
    def canonical(self) -> str:
        """Parsing Canonical Form [1]_: the text that the fingerprint is taken of."""
        seen = {self.name}
        fields = ",".join(f'{{"name":"{item.name}","type":{canonical_type(item, seen)}}}' for item in self.fields)
        return f'{{"name":"{self.name}","type":"record","fields":[{fields}]}}'

    @cached_property
    def fingerprint(self) -> int:
        """CRC-64-AVRO of the canonical form, unsigned."""
        return crc64(self.canonical.encode())

    @property
    def id(self) -> SchemaId:
        """The fingerprint as a `SchemaId`."""
        return SchemaId("fingerprint", self.fingerprint)

    @property
    def single_object_prefix(self) -> bytes:
        """Header of Avro's single-object encoding: C3 01 and the fingerprint, little-endian."""
        return b"\xc3\x01" + self.fingerprint.to_bytes(8, "little")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Field names in wire order."""
        return tuple(item.name for item in self.fields)

    def __getitem__(self, name: str) -> Field:
        """Return the field of this name; KeyError if there is none."""
        for item in self.fields:
            if item.name == name:
                return item
        raise KeyError(name)

    def extend(self, before: Iterable[Field] = (), after: Iterable[Field] = (), name: str | None = None) -> Schema:
        """Return this record with fields put before and after its own.

        Raises
        ------
        SchemaError
            If two fields have the same name.
        """
        return replace(self, name=name or self.name, fields=(*before, *self.fields, *after))

    @cached_property
    def definitions(self) -> dict[str, Any]:
        """Named types by full name, this record included, normalized."""
        shapes = [item.shape if item.kind == "other" else type_json(item, set()) for item in self.fields]
        record = {"type": "record", "name": self.name, "fields": [{"name": "", "type": shape} for shape in shapes]}
        return definitions_in(record)

    @cached_property
    def flat(self) -> Schema:
        """This record without the fields that no column can hold."""
        return replace(self, fields=tuple(item for item in self.fields if item.kind != "other"))

    def require_columns(self) -> None:
        """Refuse fields that no column can hold.

        Raises
        ------
        SchemaError
            Naming the first one, its type, and what is supported.
        """
        for item in self.fields:
            reason = unsupported(self.name, item)
            if reason is not None:
                raise SchemaError(reason, item.name)

    def to_json(self) -> str:
        """Return Avro JSON with every attribute, which `parse` reads back to an equal value."""
        seen = {self.name}
        body = {
            "type": "record",
            "name": self.name,
            **({"aliases": list(self.aliases)} if self.aliases else {}),
            **self.attributes,
            "fields": [field_json(item, seen) for item in self.fields],
        }
        return json.dumps(body, ensure_ascii=False)


def crc64(data: bytes) -> int:
    """Return Avro's CRC-64 (Rabin) fingerprint of ``data``, unsigned [1]_.

    Examples
    --------
    >>> hex(crc64(b'"null"'))
    '0x63dd24e7cc258f8a'
    """
    value = _CRC_EMPTY
    for byte in data:
        value = (value >> 8) ^ _CRC_TABLE[(value ^ byte) & 0xFF]
    return value


def _crc_row(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (_CRC_EMPTY if value & 1 else 0)
    return value


_CRC_TABLE: Final = tuple(_crc_row(i) for i in range(256))
