"""Sound events of any contract, made from its fields and constraints."""

from __future__ import annotations

import random
from typing import Any, Final

from millstream.errors import Misconfigured
from millstream_lab.chaos.poison_schemas import Json, bare

SPAN_MS: Final = 2 * 3_600_000
_KEYS: Final = 200
_BITS: Final = {"int": 31, "long": 63}
_SCATTER: Final = 0x9E3779B97F4A7C15  # odd, so that multiplying by it gives different numbers for different ones


class EventMaker:
    """Makes events that keep a contract, each with an id of its own.

    Parameters
    ----------
    contract : mapping
        Avro JSON with the roles key, event_id and event_time.
    rng : Random
    now_ms : int
        Event times lie within `SPAN_MS` before it.

    Raises
    ------
    Misconfigured
        A field's constraints cannot be met by construction.
    """

    def __init__(self, contract: Json, rng: random.Random, now_ms: int) -> None:
        self._fields: list[Json] = contract["fields"]
        self._rng = rng
        self._now_ms = now_ms
        self._made = 0
        roles = contract["millstream"]
        self.key, self.event_id, self.event_time = roles["key"], roles["event_id"], roles["event_time"]
        for field in self._fields:
            if "pattern" in field and "default" not in field:
                raise Misconfigured(f"field {field['name']!r} has a pattern and no default; poison cannot invent one")
        self.keys = _KEYS if self.key != self.event_id else 0
        kinds = {field["name"]: bare(field["type"]) for field in self._fields}
        self._most_id = (1 << 30) - 1 if kinds[self.event_id] == "int" else (1 << 60) - 1

    def __call__(self, key_number: int | None = None) -> Json:
        """Return an event; ``key_number`` in [0, keys) selects the key, else any."""
        self._made += 1
        event = {field["name"]: self._value(field) for field in self._fields}
        # Scattered, so that an id with a few bits flipped is not another event's.
        event[self.event_id] = self._numbered(self.event_id, self._made * _SCATTER & self._most_id)
        if self.keys:
            number = self._rng.randrange(self.keys) if key_number is None else key_number
            event[self.key] = self._numbered(self.key, number)
        event[self.event_time] = self._now_ms - self._rng.randrange(SPAN_MS)
        return event

    def key_of(self, event: Json) -> bytes:
        """Return the message key of an event."""
        return str(event[self.key]).encode()

    def _numbered(self, name: str, number: int) -> int | str:
        (field,) = (field for field in self._fields if field["name"] == name)
        return f"{name}-{number}" if field["type"] == "string" else int(bounds(field)[0]) + number

    def _value(self, field: Json) -> Any:  # noqa: PLR0911 - one per Avro type
        rng, kind = self._rng, bare(field["type"])
        if isinstance(kind, list):
            if rng.random() < 0.2:
                return None
            kind = next(each for each in kind if each != "null")
        if "pattern" in field:
            return field["default"]
        if "allowed" in field:
            return rng.choice(field["allowed"])
        if isinstance(kind, dict):
            return rng.choice(kind["symbols"])
        if kind == "boolean":
            return rng.random() < 0.5
        low, high = bounds(field)
        if kind in _BITS:
            timed = "not_older_than_ms" in field or "not_after_ms" in field
            return self._now_ms - rng.randrange(1000) if timed else rng.randint(int(low), int(high))
        if kind in {"float", "double"}:
            return round(rng.uniform(low, high), 2)
        text = f"{field['name']}-{rng.randrange(1000)}é"[: field.get("max_length", 100)]
        return text if kind == "string" else text.encode()[: field.get("max_length", 100)]


def bounds(field: Json) -> tuple[float, float]:
    """Return numbers between which a field's value may be, both included, and not far apart."""
    low = field.get("minimum", field.get("exclusive_minimum"))
    high = field.get("maximum", field.get("exclusive_maximum"))
    if low is None:
        low = 0 if high is None else high - 1000
    inner_low = low + 1 if "exclusive_minimum" in field else low
    inner_high = low + 1000 if high is None else min(low + 1000, high)
    return inner_low, (inner_high - 1 if "exclusive_maximum" in field else inner_high)
