"""The input of a chaos run: numbered events without end, duplicates, disorder, late and malformed ones, by seed."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.schema import Schema
from millstream.core.batch import Batch

START_MS = 1_533_081_600_000
_DAY_MS = 86_400_000
_DISORDER_MS = 60_000
_FIRST_LATE = 200
"""By then every partition has seen events that make one of two months ago late."""
_FIELDS = ("transaction_id", "customer_id", "terminal_id", "event_time_ms", "amount")
Row = tuple[int, int, int, int, float]


@dataclass(frozen=True, slots=True)
class Message:
    """One record to publish; ``number`` is its event id, -1 where there is no readable one."""

    number: int
    key: bytes
    value: bytes
    kind: str


class ChaosStream:
    """Events of the reference contract.

    Parameters
    ----------
    schema : Schema
        Of the contract ``transactions``.
    seed : int
    step_ms : int
        Event time between two events.
    customers, terminals : int
        How many of each take part.
    """

    def __init__(self, schema: Schema, seed: int, step_ms: int, customers: int = 400, terminals: int = 600) -> None:
        self.kinds: Counter[str] = Counter()
        self._writer = RecordWriter(schema)
        self._random = random.Random(seed)
        self._step_ms = step_ms
        self._customers = customers
        self._terminals = terminals
        self._number = 0
        self._recent: deque[Row] = deque(maxlen=500)

    def reframe(self, writer: RecordWriter) -> None:
        """Encode with another writer from here on, such as one that frames as a schema registry does."""
        self._writer = writer

    def take(self, events: int) -> list[Message]:
        """Return the next ``events`` sound events, in order, with what is mixed in between them."""
        rows: list[tuple[Row, str]] = []
        for _ in range(events):
            made = self._sound()
            rows.append((made, "sound"))
            chance = self._random.random()
            if chance < 0.03:
                rows.append((self._random.choice(self._recent), "duplicate"))
            elif chance < 0.04 and self._number > _FIRST_LATE:
                rows.append((self._next(made[1], made[2], made[3] - 60 * _DAY_MS, 5.0), "late"))
            elif chance < 0.05:
                rows.append((self._next(made[1], made[2], made[3], -5.0), "range"))
            elif chance < 0.06:
                rows.append((made, "poison"))
        return self._encoded(rows)

    def _next(self, customer: int, terminal: int, time_ms: int, amount: float) -> Row:
        self._number += 1
        return (self._number - 1, customer, terminal, time_ms, amount)

    def _sound(self) -> Row:
        time_ms = START_MS + self._number * self._step_ms + self._random.randrange(-_DISORDER_MS, _DISORDER_MS)
        made = self._next(
            self._random.randrange(self._customers),
            self._random.randrange(self._terminals),
            time_ms,
            round(self._random.uniform(0.01, 400), 2),
        )
        self._recent.append(made)
        return made

    def _encoded(self, rows: Sequence[tuple[Row, str]]) -> list[Message]:
        columns = {name: np.array([row[at] for row, _ in rows]) for at, name in enumerate(_FIELDS)}
        values = self._writer.encode(Batch(len(rows), columns))
        messages = []
        for (row, kind), value in zip(rows, values, strict=True):
            cut = value[: self._random.randrange(len(value))] if kind == "poison" else value
            self.kinds[kind] += 1
            messages.append(Message(-1 if kind == "poison" else row[0], b"%d" % row[1], cut, kind))
        return messages
