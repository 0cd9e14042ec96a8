"""The stream that an agent's function iterates over: the events of micro-batches, one after another."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any

from millstream.runtime.agents.context import Event, Scope, current


class Stream:
    """Values of the events of a topic, as Faust's stream has them.

    ``async for value in stream`` yields the fields of each event as a dict; `events` yields `Event`, `items` yields
    key and value, `take` yields lists. An event is completed when the function asks for the next one: what it sent and
    stored until then is part of the micro-batch's transaction.

    Operations of Faust's streams that keep events beyond a micro-batch, or go through topics of their own
    (``group_by``, ``through``, ``join``, ``filter`` chains, ``echo``), are not available; use several agents.
    """

    def __init__(self, agent: str) -> None:
        self._agent = agent
        self.scope = Scope(agent)
        self.completed: list[Scope] = []
        self.one_by_one = 0  # so many events are handed out singly, to find the one that fails
        self._pending: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self.idle = asyncio.Event()

    def feed(self, events: Iterable[Event]) -> None:
        """Hand events to the function; `idle` is set when it has completed them and asks for more."""
        self._pending.extend(events)
        self.idle.clear()
        self._arrived.set()

    def undone(self) -> Scope:
        """Return the scope of the events that were handed out and not completed, and begin a new one."""
        undone, self.scope = self.scope, Scope(self._agent)
        return undone

    def requeue(self, events: list[Event]) -> None:
        """Hand events out again, before all others, each by itself."""
        self._pending.extendleft(reversed(events))
        self.one_by_one = max(self.one_by_one, len(events))

    async def _next(self, most: int) -> list[Event]:
        if self.scope.events:
            self.completed.append(self.scope)
            self.scope = Scope(self._agent)
        while not self._pending:
            self.idle.set()
            self._arrived.clear()
            await self._arrived.wait()
        if self.one_by_one:
            most, self.one_by_one = 1, self.one_by_one - 1
        # Entries of tables belong to a partition, so events of one partition only are taken together.
        first = self._pending[0].partition
        while self._pending and len(self.scope.events) < most and self._pending[0].partition == first:
            self.scope.events.append(self._pending.popleft())
        current.set(self.scope)
        return self.scope.events

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        return self._values()

    async def _values(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            yield (await self._next(1))[0].value

    async def events(self) -> AsyncIterator[Event]:
        """Yield events: value, key, partition, offset and timestamp."""
        while True:
            yield (await self._next(1))[0]

    async def items(self) -> AsyncIterator[tuple[str | None, dict[str, Any]]]:
        """Yield key and value of each event."""
        while True:
            event = (await self._next(1))[0]
            yield event.key, event.value

    async def take(self, max_: int, within: float | None = None) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield lists of at most ``max_`` values of one partition and micro-batch; events are not held back.

        Parameters
        ----------
        within : float, optional
            Accepted for Faust's sake, in seconds; nothing is waited for.
        """
        while True:
            yield [event.value for event in await self._next(max_)]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise NotImplementedError(
            f"stream.{name} is not available in an agent of Millstream: its effect could not be part of the "
            "micro-batch's transaction. Available are iteration, events, items and take"
        )
