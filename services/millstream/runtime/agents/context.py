"""The event that an agent is working on: what topics and tables of the app belong to while its function runs."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """One consumed record, as Faust's events have it.

    Parameters
    ----------
    key : str or None
        Text of the message key.
    value : dict
        Fields of the record by name; logical types as the Avro type below them, such as milliseconds for timestamps.
    topic : str
    partition, offset : int
    timestamp_ms : int
        The record's timestamp, milliseconds since the epoch.
    row : int
        Position in the micro-batch.
    """

    key: str | None
    value: dict[str, Any]
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    row: int = -1


@dataclass(frozen=True, slots=True)
class Sent:
    """One encoded record that an agent sent."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None
    timestamp_ms: int | None


@dataclass(slots=True)
class Scope:
    """What the events being worked on have sent and changed; all of it is undone when one of them fails.

    Parameters
    ----------
    agent : str
        Name of the agent.
    events : list of Event
        Taken from the stream and not completed.
    sent : list of Sent
    before : dict
        Former entry by (table, partition, key), for each entry that was changed; `MISSING` where there was none.
    """

    agent: str
    events: list[Event] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    before: dict[tuple[str, int, Any], Any] = field(default_factory=dict)

    @property
    def partition(self) -> int:
        """Partition of the events."""
        return self.events[-1].partition


MISSING: Any = object()

current: ContextVar[Scope | None] = ContextVar("millstream_agent_scope", default=None)
"""The scope of the agent whose function runs; None in timers, tasks and commands."""
