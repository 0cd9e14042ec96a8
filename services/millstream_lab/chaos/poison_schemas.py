"""Writers around a contract (known, not published yet, one that nests), and their records by fastavro."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fastavro

from millstream_lab.chaos.poison_oracle import fingerprint_of

Json = dict[str, Any]
_MORE: list[Json] = [
    {"name": "more_note", "type": ["null", "string"], "default": None},
    {"name": "more_kind", "type": {"type": "enum", "name": "MoreKind", "symbols": ["one", "two"]}},
    {"name": "more_flag", "type": "boolean"},
    {"name": "more_text", "type": "string"},
    {"name": "more_count", "type": "int"},
    {"name": "more_number", "type": "long"},
]
MORE_SOUND: Json = {
    "more_note": "née",
    "more_kind": "two",
    "more_flag": True,
    "more_text": "ok",
    "more_count": 7,
    "more_number": 1 << 40,
}


def bare(kind: Any) -> Any:
    """Return a type without its logical type, so that fastavro writes what it is given."""
    if isinstance(kind, list):
        return [bare(each) for each in kind]
    return kind["type"] if isinstance(kind, Mapping) and "logicalType" in kind else kind


class Writer:
    """Encodes records of one Avro JSON schema with fastavro.

    Parameters
    ----------
    schema : mapping
        Avro JSON.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = dict(schema)
        self.fingerprint = fingerprint_of(schema)
        self.prefix = b"\xc3\x01" + struct.pack("<Q", self.fingerprint)
        fields = [{**field, "type": bare(field["type"])} for field in schema["fields"]]
        self._parsed = fastavro.parse_schema({**schema, "fields": fields})

    def body(self, record: Mapping[str, Any]) -> bytes:
        """Return a record without framing."""
        out = io.BytesIO()
        fastavro.schemaless_writer(out, self._parsed, record)
        return out.getvalue()

    def __call__(self, record: Mapping[str, Any]) -> bytes:
        """Return a framed record."""
        return self.prefix + self.body(record)


@dataclass(frozen=True, slots=True)
class Writers:
    """Who writes to the topic.

    Parameters
    ----------
    contract, known, unpublished : Writer
        Of today; of a version with more fields; of another such version that is not published yet.
    foreign : Writer
        Of another topic's contract.
    nested_prefix : bytes
        Framing of a published version with a recursive field.
    nested : str
        Its Avro JSON.
    """

    contract: Writer
    known: Writer
    unpublished: Writer
    foreign: Writer
    nested: Writer


def writers_of(contract: Json, foreign: Json) -> Writers:
    """Return the writers around a contract."""
    pure = {name: value for name, value in contract.items() if name != "fields"}
    fields: list[Json] = contract["fields"]
    later: Json = {"name": "later_channel", "type": "string", "default": "web"}
    tree: Json = {"type": "record", "name": "Tree", "fields": [{"name": "inner", "type": ["null", "Tree"]}]}
    return Writers(
        Writer(contract),
        Writer({**pure, "fields": [*fields, *_MORE]}),
        Writer({**pure, "fields": [later, *fields]}),
        Writer(foreign),
        Writer({**pure, "fields": [*fields, {"name": "tree", "type": tree}]}),
    )
