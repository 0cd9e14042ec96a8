"""Malformed messages of any contract, each kind of damage by name, from one seed."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from millstream_lab.chaos.poison_events import EventMaker
from millstream_lab.chaos.poison_schemas import MORE_SOUND, Json, Writers, bare

GOOD: Final = "good"
BIG_BYTES: Final = 2_000_000
TOPIC_LIMIT_BYTES: Final = 16_777_216
_OVERSIZE_PER: Final = 2_500
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Message:
    """What is published; ``kind`` is the kind of damage."""

    kind: str
    key: bytes | None
    value: bytes | None


def varint(number: int) -> bytes:
    """Return a zigzag varint as Avro writes it.

    Examples
    --------
    >>> varint(-1), varint(64)
    (b'\\x01', b'\\x80\\x01')
    """
    raw = (number << 1) ^ (number >> 63)
    out = bytearray()
    while raw > 127:
        out.append(raw & 127 | 128)
        raw >>= 7
    return bytes([*out, raw])


class Poisoner:
    """Makes messages.

    Parameters
    ----------
    writers : Writers
    seed : int
    now_ms : int
        What event times are relative to; otherwise the same seed makes the same messages.
    """

    def __init__(self, writers: Writers, seed: int, now_ms: int) -> None:
        self._writers = writers
        self._rng = random.Random(seed)
        self._now_ms = now_ms
        self._events = EventMaker(writers.contract.schema, self._rng, now_ms)
        self._sent: deque[tuple[Json, Message]] = deque(maxlen=1000)
        fields = writers.contract.schema["fields"]
        kinds = {field["name"]: bare(field["type"]) for field in fields}
        roles = {self._events.key, self._events.event_id, self._events.event_time}
        self._reals = [name for name, kind in kinds.items() if _among(kind, {"float", "double"})]
        numeric = {"int", "long", "float", "double"}
        self._numbers = [n for n, kind in kinds.items() if n != self._events.event_id and _among(kind, numeric)]
        self._negatable = [name for name in self._numbers if name not in {self._events.key, self._events.event_id}]
        self._whole = {name for name, kind in kinds.items() if _among(kind, {"int", "long"})}
        self._narrow = {name for name, kind in kinds.items() if _among(kind, {"int"})}
        self._texts = [field for field in fields if "max_length" in field and field["name"] not in roles]
        self._kinds = self._table()

    @property
    def kinds(self) -> list[str]:
        """Names of all kinds of damage that this contract has room for, oversize excluded."""
        return list(self._kinds)

    def good(self, key_number: int | None = None) -> Message:
        """Return a sound event."""
        event = self._events(key_number)
        message = Message(GOOD, self._events.key_of(event), self._writers.contract(event))
        self._sent.append((event, message))
        return message

    def stream(self, count: int) -> Iterator[Message]:
        """Yield ``count`` malformed messages in even shares, a good event with every four; every key's first is good.

        One in 2,500 has 2 MB, and the middle one fills the topic's limit to the brim.
        """
        for number in range(self._events.keys):
            yield self.good(number)
        names = self.kinds
        for number in range(count):
            if number % 4 == 0:
                yield self.good()
            if number == count // 2:
                yield self._oversize("at the brokers' limit", TOPIC_LIMIT_BYTES - 200)
            elif number % _OVERSIZE_PER == _OVERSIZE_PER // 3:
                yield self._oversize("2 MB", BIG_BYTES)
            else:
                kind = self._rng.choice(names)
                key, value = self._kinds[kind]()
                yield Message(kind, key, value)

    def _oversize(self, kind: str, size: int) -> Message:
        event = self._events()
        start = self._writers.contract(event)
        return Message(kind, self._events.key_of(event), start + self._rng.randbytes(size - len(start)))

    def _table(self) -> dict[str, Callable[[], tuple[bytes | None, bytes | None]]]:
        rng, writers = self._rng, self._writers
        table: dict[str, Callable[[], tuple[bytes | None, bytes | None]]] = {
            "truncated": lambda: self._bytes(lambda value: value[: rng.randrange(len(value))]),
            "bits flipped": lambda: self._bytes(self._flipped),
            "bytes changed": lambda: self._bytes(self._changed),
            "trailing bytes": lambda: self._bytes(lambda value: value + rng.randbytes(rng.randint(1, 9))),
            "unknown fingerprint": lambda: self._bytes(lambda value: value[:2] + rng.randbytes(8) + value[10:]),
            "unknown registry id": lambda: self._bytes(lambda value: b"\0" + rng.randbytes(4) + value[10:]),
            "bad framing": lambda: self._bytes(self._misframed),
            "unpublished schema": lambda: self._event({}, writers.unpublished, {"later_channel": "shop"}),
            "nested schema": self._nested,
            "another topic's schema": lambda: self._bytes(lambda value: writers.foreign.prefix + value[10:]),
            "null key": lambda: (None, self._event({})[1]),
            "wrong key": lambda: (rng.choice([b"", b"\xff", b"other", b"00", b"1.0"]), self._event({})[1]),
            "tombstone": lambda: (self._event({})[0], None),
            "empty value": lambda: (self._event({})[0], b""),
            "far future": lambda: self._event(
                {self._events.event_time: self._now_ms + rng.choice([25 * 3_600_000, 400 * _DAY_MS, 1 << 51, 1 << 62])}
            ),
            "far past": lambda: self._event(
                {self._events.event_time: self._now_ms - rng.choice([90 * _DAY_MS, 9000 * _DAY_MS, 1 << 52])}
            ),
            "wrong union branch": lambda: self._tail("more_note", lambda: varint(rng.choice([2, 3, -1, 99, 1 << 40]))),
            "wrong enum index": lambda: self._tail("more_kind", lambda: varint(rng.choice([2, -1, -2, 1 << 33]))),
            "boolean past 1": lambda: self._tail("more_flag", lambda: bytes([rng.randint(2, 255)])),
            "invalid UTF-8": lambda: self._tail("more_text", self._bad_text),
            "wrong length": lambda: self._tail(
                "more_text", lambda: varint(rng.choice([-1, -(1 << 63), 1 << 20, (1 << 63) - 1])) + b"ab"
            ),
            "int past 32 bits": lambda: self._tail(
                "more_count", lambda: varint(rng.choice([1 << 31, -(1 << 31) - 1, 1 << 62]))
            ),
            "overlong varint": lambda: self._tail(
                "more_number",
                lambda: rng.choice([b"\x80" * 10 + b"\x01", b"\xff" * 9 + b"\x02", b"\xff" * 30, b"\x82\x80\x00"]),
            ),
            "duplicate": self._again,
            "duplicate id": self._same_id,
        }
        if self._reals:
            table["not a number"] = lambda: self._event({rng.choice(self._reals): math.nan})
            table["infinite"] = lambda: self._event({rng.choice(self._reals): rng.choice([math.inf, -math.inf])})
        if self._negatable:
            table["negative"] = self._negative
        if self._numbers:
            table["huge number"] = self._huge
        if self._texts:
            table["long text"] = self._long_text
        return table

    def _event(self, changes: Json, writer: Any = None, more: Json | None = None) -> tuple[bytes, bytes]:
        event = {**self._events(), **changes}
        encode = self._writers.contract if writer is None else writer
        return self._events.key_of(event), encode({**event, **(more or {})})

    def _bytes(self, change: Callable[[bytes], bytes]) -> tuple[bytes, bytes]:
        key, value = self._event({})
        return key, change(value)

    def _flipped(self, value: bytes) -> bytes:
        out = bytearray(value)
        for _ in range(self._rng.randint(1, 3)):
            bit = self._rng.randrange(8 * len(out))
            out[bit // 8] ^= 1 << bit % 8
        return bytes(out)

    def _changed(self, value: bytes) -> bytes:
        at, few = self._rng.randrange(len(value)), self._rng.randbytes(self._rng.randint(1, 4))
        return self._rng.choice([value[:at] + few + value[at:], value[:at] + value[at + 1 :], value[:at] + few])

    def _misframed(self, value: bytes) -> bytes:
        rng = self._rng
        whole = [
            b'{"amount": 1.5}',
            value[10:],
            rng.randbytes(rng.randint(1, 60)),
            value[1:],
            b"\xc3",
            b"\0\0",
            b"\xff" * 9,
        ]
        return rng.choice([*whole, b"\xc3\x01" + value[2:9], b"\xc3\x02" + value[2:], "né".encode("utf-16")])

    def _nested(self) -> tuple[bytes, bytes]:
        key, value = self._event({})
        # Each level is the second branch of the union, the last one null: a few that are skipped, or thousands.
        levels = self._rng.choice([self._rng.randint(0, 255), self._rng.randint(256, 5000)])
        return key, self._writers.nested.prefix + value[10:] + b"\x02" * levels + b"\0"

    def _tail(self, name: str, wrong: Callable[[], bytes]) -> tuple[bytes, bytes]:
        """Return a known version's record in which the bytes of one field are wrong."""
        event = self._events()
        value = self._writers.contract(event)[10:]
        whole = self._writers.known({**event, **MORE_SOUND})
        parts = {
            "more_note": b"\x02\x0an\xc3\xa9e"[:1] + varint(4) + "née".encode(),
            "more_kind": varint(1),
            "more_flag": b"\1",
            "more_text": varint(2) + b"ok",
            "more_count": varint(7),
            "more_number": varint(1 << 40),
        }
        assert whole == self._writers.known.prefix + value + b"".join(parts.values())
        parts[name] = wrong()
        return self._events.key_of(event), self._writers.known.prefix + value + b"".join(parts.values())

    def _bad_text(self) -> bytes:
        bad = [b"\xff\xfe", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ab\xc3", b"\x80"]
        text = self._rng.choice(bad)
        return varint(len(text)) + text

    def _again(self) -> tuple[bytes | None, bytes | None]:
        message = self._rng.choice(self._sent)[1]
        return message.key, message.value

    def _same_id(self) -> tuple[bytes, bytes]:
        event = self._rng.choice(self._sent)[0]
        fresh = self._events()
        keep = {self._events.key: event[self._events.key], self._events.event_id: event[self._events.event_id]}
        changed = {**fresh, **keep}
        return self._events.key_of(changed), self._writers.contract(changed)

    def _negative(self) -> tuple[bytes, bytes]:
        name = self._rng.choice(self._negatable)
        number = -self._rng.choice([1, 5, 1000, (1 << 31) - 1])
        return self._event({name: number if name in self._whole else float(number) / 4})

    def _huge(self) -> tuple[bytes, bytes]:
        name = self._rng.choice(self._numbers)
        if name in self._whole:
            top = (1 << 31) - 1 if name in self._narrow else (1 << 63) - 1
            return self._event({name: self._rng.choice([top, -top - 1])})
        return self._event({name: self._rng.choice([2.0**90, -(2.0**90), 1e15, 1.7e38, 1e-300])})

    def _long_text(self) -> tuple[bytes, bytes]:
        field = self._rng.choice(self._texts)
        size = field["max_length"] + self._rng.choice([1, 2, 100_000])
        return self._event({field["name"]: "ß" * size if _among(bare(field["type"]), {"string"}) else b"x" * size})


def _among(kind: Any, names: set[str]) -> bool:
    kinds = kind if isinstance(kind, list) else [kind]
    return any(isinstance(each, str) and each in names for each in kinds)
