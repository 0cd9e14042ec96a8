"""When events arrive: in order or not, some of them twice."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from millstream.core.avro.encode import RecordWriter
from millstream.core.text import as_text
from millstream.runtime.log.records import Output

if TYPE_CHECKING:
    from millstream.app.assembly import Assembly
    from millstream.core.batch import Batch

_DUPLICATE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Records of the event topic in the order in which they arrive.

    Parameters
    ----------
    keys, values : sequence of bytes
    stamps_ms : sequence of int
        When each arrives; ascending.
    by_id : mapping of str to int
        Position among the events that were given, by event id.
    """

    keys: Sequence[bytes]
    values: Sequence[bytes]
    stamps_ms: Sequence[int]
    by_id: Mapping[str, int]

    def outputs(self, topic: str, size: int) -> Iterator[Output]:
        """Yield the records, at most ``size`` at a time."""
        for at in range(0, len(self.keys), size):
            part = slice(at, at + size)
            yield Output(topic, self.keys[part], self.values[part], None, self.stamps_ms[part])


def arrivals(assembly: Assembly, events: Batch, rng: random.Random, disorder_ms: int, duplicates: float) -> Arrivals:
    """Return when events arrive.

    Parameters
    ----------
    disorder_ms : int
        Each arrives up to so long after its event time; 0: all in the order given.
    duplicates : float
        Share that arrives twice.
    """
    contract = assembly.contract
    times_ms: list[int] = events.columns[contract.event_time].tolist()
    keys, values = as_text(events.columns[contract.key]), RecordWriter(contract.schema).encode(events)
    came_ms = [at + rng.randint(0, disorder_ms) for at in times_ms] if disorder_ms else list(accumulate(times_ms, max))
    order = [(at_ms, row) for row, at_ms in enumerate(came_ms)]
    again_ms = max(_DUPLICATE_MS, disorder_ms)
    order += [(at_ms + rng.randint(0, again_ms), row) for at_ms, row in order if rng.random() < duplicates]
    order.sort(key=lambda each: each[0])
    ids = as_text(events.columns[contract.event_id])
    return Arrivals(
        [keys[row] for _, row in order],
        [values[row] for _, row in order],
        [at_ms for at_ms, _ in order],
        {each.decode(): row for row, each in reversed(list(enumerate(ids)))},
    )
