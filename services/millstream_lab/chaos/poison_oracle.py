"""What must become of a message, worked out slowly: fastavro field by field, constraints in plain Python, no columns.

Shares no code with the decoder, the contract check or the windows; it reads the same Avro JSON. Where fastavro is laxer
than Millstream means to be, `STRICTER` names it.

References
----------
.. [1] Apache Avro 1.12 specification, "Binary encoding" and "Single-object encoding".
"""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, Final

import fastavro

STRICTER: Final[Mapping[str, str]] = {
    "varint past 64 bits": "a long has 64; fastavro takes any length and drops what is past them",
    "int past 32 bits": "an int has 32; fastavro hands the wider number out",
    "boolean past 1": "the specification knows 0 and 1; fastavro takes any byte but 0 for true",
    "negative union branch": "Python counts it from the end; no such branch was ever written",
    "negative enum index": "Python counts it from the end; no such symbol was ever written",
    "bytes left over": "a record is the whole message; fastavro stops reading where it knows enough",
    "nested too deeply": "levels of nesting are bounded here; fastavro recurses until Python stops it",
    "unread text": "fastavro does not look at the UTF-8 of strings and the symbols of enums that the reader skips",
}
"""What fastavro accepts and Millstream refuses on purpose: a corrupt record must not become a plausible one."""

_MOST_NESTED: Final = 256

# What fastavro raises on bytes that are not the record; anything else it raises is a finding.
UNREADABLE = (EOFError, IndexError, UnicodeDecodeError, ValueError, OverflowError, MemoryError, struct.error)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a record cannot be answered: the dead letter's reason and field, and in ``detail`` more for people."""

    reason: str
    field: str = ""
    detail: str = dataclass_field(default="", compare=False)


class _Wrong(Exception):
    """The bytes are not of this type; the text is one of `STRICTER`, or fastavro's."""


def read_fields(fields: list[dict[str, Any]], body: bytes) -> dict[str, Any] | Fault:
    """Read one record body field by field.

    Parameters
    ----------
    fields : list of Avro JSON fields
        Primitives, enums, unions of one of those with null, and records that hold only themselves or null.
    """
    source = io.BytesIO(body)
    values: dict[str, Any] = {}
    enums: dict[str, Any] = {}
    for field in fields:
        kind = _inlined(field["type"], enums)
        start = source.tell()
        try:
            _strictly(kind, body, start)
            values[field["name"]] = fastavro.schemaless_reader(source, kind, None)
        except (_Wrong, *UNREADABLE) as error:
            return Fault("undecodable", field["name"], str(error))
    return values if source.tell() == len(body) else Fault("undecodable", "", "bytes left over")


def _inlined(kind: Any, enums: dict[str, Any]) -> Any:
    """Return the type alone: named enums spelt out, logical types as what is on the wire."""
    if isinstance(kind, list):
        return [_inlined(each, enums) for each in kind]
    if isinstance(kind, dict) and kind["type"] in {"enum", "record"}:
        enums[kind["name"]] = kind
        return kind
    return enums.get(kind, kind) if isinstance(kind, str) else kind["type"]


def _strictly(kind: Any, body: bytes, at: int) -> None:
    """Refuse what fastavro would let pass."""
    if isinstance(kind, list):
        branch, at = _varint(body, at)
        if branch < 0:
            raise _Wrong("negative union branch")
        if branch >= len(kind):
            raise _Wrong("no such branch")
        return _strictly(kind[branch], body, at)
    name = kind["type"] if isinstance(kind, dict) else kind
    if name in {"int", "long", "enum", "string", "bytes"}:
        number, _ = _varint(body, at)
        if name == "int" and not -(1 << 31) <= number < 1 << 31:
            raise _Wrong("int past 32 bits")
        if name == "enum" and number < 0:
            raise _Wrong("negative enum index")
    elif name == "record" and body[at : at + _MOST_NESTED] == b"\2" * _MOST_NESTED:
        raise _Wrong("nested too deeply")
    elif name == "boolean" and body[at : at + 1] > b"\1":
        raise _Wrong("boolean past 1")
    return None


def _varint(body: bytes, at: int) -> tuple[int, int]:
    raw = 0
    for place in range(min(len(body) - at, 11)):
        byte = body[at + place]
        raw |= (byte & 127) << (7 * place)
        if byte < 128:
            if place > 9 or raw >= 1 << 64:
                raise _Wrong("varint past 64 bits")
            return (raw >> 1) ^ -(raw & 1), at + place + 1
    raise _Wrong("varint past 64 bits" if len(body) - at > 9 else "ends inside a varint")


class Oracle:
    """Judges messages one at a time against a contract.

    Parameters
    ----------
    contract : mapping
        Avro JSON, constraints included.
    writers : mapping of int to mapping
        Known writers' Avro JSON by CRC-64 fingerprint; the contract's own need not be among them.
    max_bytes : int
        Larger values are refused unread.
    summed : sequence of str
        Real fields that windows sum: they must stay below 2**90.
    """

    def __init__(
        self,
        contract: Mapping[str, Any],
        writers: Mapping[int, Mapping[str, Any]],
        max_bytes: int,
        summed: frozenset[str],
    ) -> None:
        self._contract = contract
        self._roles = contract["millstream"]
        self._writers = {fingerprint_of(contract): contract, **writers}
        self._max_bytes = max_bytes
        self._summed = summed

    def judge(self, key: bytes | None, value: bytes | None, stamp_ms: int) -> dict[str, Any] | Fault:
        """Return the event, or why there is none; whether it is late or a duplicate is not asked here."""
        opened = Fault("null-value") if value is None else self._opened(value)
        if isinstance(opened, Fault):
            return opened
        event = read_fields(*opened)
        if isinstance(event, Fault):
            return event
        event = {field["name"]: event.get(field["name"], field.get("default")) for field in self._contract["fields"]}
        return self._broken(event, key, stamp_ms) or event

    def _opened(self, value: bytes) -> tuple[list[dict[str, Any]], bytes] | Fault:
        """Return the writer's fields and the body."""
        if len(value) > self._max_bytes:
            return Fault("oversize")
        if value[:2] == b"\xc3\x01" and len(value) >= 10:
            number, body = struct.unpack("<Q", value[2:10])[0], value[10:]
        elif value[:1] == b"\0" and len(value) >= 5:
            return Fault("unknown-schema")  # there is no registry
        else:
            return Fault("unknown-framing")
        if number not in self._writers:
            return Fault("unknown-schema")
        writer = self._writers[number]
        return (writer["fields"], body) if writer["name"] == self._contract["name"] else Fault("incompatible-schema")

    def _broken(self, event: dict[str, Any], key: bytes | None, stamp_ms: int) -> Fault | None:
        """Return the first thing wrong, in the contract's order of fields."""
        for field in self._contract["fields"]:
            name = field["name"]
            if name == self._roles["key"]:
                if key is None:
                    return Fault("null-key", name)
                if key != str(event[name]).encode():
                    return Fault("key-mismatch", name)
            reason = None if event[name] is None else _violation(field, event[name], stamp_ms)
            if reason is not None:
                return Fault(reason, name)
        for name in self._summed:
            if event[name] is not None and abs(event[name]) >= 2.0**90:
                return Fault("range", name)
        return None


def _violation(field: Mapping[str, Any], value: Any, stamp_ms: int) -> str | None:  # noqa: PLR0911 - one per rule
    if isinstance(value, float) and not math.isfinite(value) and not field.get("allow_non_finite", False):
        return "not-finite"
    low, above = field.get("minimum"), field.get("exclusive_minimum")
    high, below = field.get("maximum"), field.get("exclusive_maximum")
    if (low is not None and value < low) or (above is not None and value <= above):
        return "range"
    if (high is not None and value > high) or (below is not None and value >= below):
        return "range"
    if "max_length" in field and len(value) > field["max_length"]:
        return "too-long"
    if "allowed" in field and value not in field["allowed"]:
        return "not-allowed"
    if "pattern" in field and re.fullmatch(field["pattern"], value) is None:
        return "pattern"
    if "not_older_than_ms" in field and value < stamp_ms - field["not_older_than_ms"]:
        return "too-old"
    if "not_after_ms" in field and value > stamp_ms + field["not_after_ms"]:
        return "from-the-future"
    return None


def fingerprint_of(schema: Mapping[str, Any]) -> int:
    """Return the CRC-64 fingerprint as fastavro computes it, unsigned."""
    canonical = fastavro.schema.to_parsing_canonical_form(dict(schema))
    return int.from_bytes(bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")), "little")
