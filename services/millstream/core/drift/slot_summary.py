"""Summaries of slots of event time, from the measuring partitions to the monitor: counts, never events.

Everything in here is an integer, so that sums are the same in whatever order they are made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from millstream.core.drift.seasons import HOUR_MS
from millstream.core.drift.slot_counts import Block, whole_number

SLOT_MS: Final = HOUR_MS
LAST_SLOT: Final = 4_102_444_800_000 // SLOT_MS
"""Of event times before 2100; what claims to be of a later slot, or of one before 1970, is not counted."""

LATENCY_EDGES_MS: Final = tuple(round(2 ** (i / 2)) for i in range(4, 41))
"""Upper edges of the cells in which time to the score is counted: from 4 ms to 17 minutes, each 1.4 times the last."""


def slot_reached(stream_time: str | None) -> int | None:
    """Return the slot of a time in ISO 8601, UTC where it names no zone; None if it is no time of a slot.

    Examples
    --------
    >>> slot_reached("1970-01-01T02:30:00.000"), slot_reached("soon")
    (2, None)
    """
    try:
        at = datetime.fromisoformat(stream_time or "")
    except ValueError:
        return None
    slot = int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000) // SLOT_MS
    return slot if 0 <= slot <= LAST_SLOT else None


@dataclass(slots=True)
class Tally:
    """What one partition has counted of all events in one slot, scored by any model.

    Parameters
    ----------
    events : int
        Scored.
    latencies : list of int, length ``len(LATENCY_EDGES_MS) + 1``
        By time from arrival to score; events without a time of arrival are in none.
    dead, late : int
        Dead letters: those that came too late, and the others.
    duplicates : int
        Events that had come before, and were not scored again.
    behind_ms : int
        How far the online view was behind what had been scored, at most.
    """

    events: int = 0
    latencies: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_EDGES_MS) + 1))
    dead: int = 0
    late: int = 0
    duplicates: int = 0
    behind_ms: int = 0

    def add(self, other: Tally) -> None:
        """Count the other's events as well."""
        self.events += other.events
        self.latencies = [one + two for one, two in zip(self.latencies, other.latencies, strict=True)]
        self.dead += other.dead
        self.late += other.late
        self.duplicates += other.duplicates
        self.behind_ms = max(self.behind_ms, other.behind_ms)

    def to_json(self) -> list[Any]:
        return [self.events, self.latencies, self.dead, self.late, self.duplicates, self.behind_ms]

    @staticmethod
    def of_json(raw: list[Any]) -> Tally:
        """Return what `to_json` wrote; ValueError or TypeError if it is none."""
        events, latencies, dead, late, duplicates, behind_ms = raw
        if not isinstance(latencies, list) or len(latencies) != len(LATENCY_EDGES_MS) + 1:
            raise ValueError(f"latencies are not in {len(LATENCY_EDGES_MS) + 1} cells")
        counted = [whole_number(each) for each in (events, dead, late, duplicates, behind_ms)]
        return Tally(counted[0], [whole_number(each) for each in latencies], *counted[1:])


@dataclass(frozen=True, slots=True)
class Summary:
    """One message of a partition to the monitor.

    Parameters
    ----------
    partition : int
    slot : int or None
        The slot it is in now: all before are closed; None where it closes nothing, as for dead letters.
    blocks : mapping of (version, slot) to Block
        Version 0: of the online model's scores alone, see `millstream.core.drift.online_scores`.
    tallies : mapping of slot to Tally
    at : int or None
        Offset of the record that gave rise to it, where it follows from the records before that alone: it is then the
        same whenever it is published again. None elsewhere.
    """

    partition: int
    slot: int | None
    blocks: Mapping[tuple[int, int], Block]
    tallies: Mapping[int, Tally]
    at: int | None = None

    def encode(self) -> bytes:
        """Return it as JSON text."""
        return json.dumps(
            {
                "partition": self.partition,
                "slot": self.slot,
                "blocks": [[*key, self.blocks[key].to_json()] for key in sorted(self.blocks)],
                "tallies": [[slot, self.tallies[slot].to_json()] for slot in sorted(self.tallies)],
                **({} if self.at is None else {"at": self.at}),
            },
            separators=(",", ":"),
        ).encode()

    @staticmethod
    def decode(value: bytes) -> Summary:
        """Return what `encode` wrote; ValueError, KeyError or TypeError if it is none."""
        try:
            raw = json.loads(value)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
        slot = None if raw["slot"] is None else whole_number(raw["slot"], 0, LAST_SLOT)
        newest = LAST_SLOT if slot is None else slot
        blocks = {
            (whole_number(version), whole_number(at, 0, newest)): Block.of_json(each)
            for version, at, each in raw["blocks"]
        }
        tallies = {whole_number(at, 0, newest): Tally.of_json(each) for at, each in raw["tallies"]}
        at = raw.get("at")
        return Summary(
            whole_number(raw["partition"], -1), slot, blocks, tallies, None if at is None else whole_number(at)
        )
