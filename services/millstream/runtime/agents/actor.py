"""Run an agent's function over the events of a micro-batch, one after another, and undo what fails."""

from __future__ import annotations

import asyncio
import inspect
import logging
import traceback
from collections.abc import Mapping, Sequence

from millstream.errors import Stop
from millstream.runtime.agents.app import Agent, Topic
from millstream.runtime.agents.context import Event, Scope
from millstream.runtime.agents.stream import Stream
from millstream.runtime.agents.table import Table

logger = logging.getLogger(__name__)


class Actor:
    """One instance of an agent's function, on the running event loop.

    Where the function raises, what it sent and stored for the event is undone, and a new instance goes on with the next
    event, as Faust's supervisor would start one. Of events that were taken together, each is tried by itself.

    Parameters
    ----------
    agent : Agent
    tables : mapping of str to Table
        The app's.
    """

    def __init__(self, agent: Agent, tables: Mapping[str, Table]) -> None:
        self._agent = agent
        self._tables = tables
        self._stream = Stream(agent.name)
        self._task: asyncio.Task[None] | None = None

    async def process(self, events: Sequence[Event]) -> tuple[list[Scope], dict[int, str]]:
        """Have the function process these events.

        Returns
        -------
        scopes : list of Scope
            What the events that were processed sent and changed, in order.
        failed : dict of int to str
            Rows of events on which the function raised, and what.

        Raises
        ------
        Stop
            The function ended, or raised before it had taken an event.
        """
        failed: dict[int, str] = {}
        self._stream.feed(events)
        while True:
            task = self._task = self._task or asyncio.create_task(self._run(), name=f"agent-{self._agent.name}")
            idle = asyncio.create_task(self._stream.idle.wait())
            await asyncio.wait({task, idle}, return_when=asyncio.FIRST_COMPLETED)
            idle.cancel()
            if not task.done():
                scopes, self._stream.completed = self._stream.completed, []
                return scopes, failed
            self._task = None
            self._undo(task, failed)

    def _undo(self, task: asyncio.Task[None], failed: dict[int, str]) -> None:
        name, undone = self._agent.name, self._stream.undone()
        for (table, partition, key), before in undone.before.items():
            self._tables[table].undo(partition, key, before)
        error = None if task.cancelled() else task.exception()
        if error is None:
            raise Stop(f"agent {name}: the function ended; iterate over its stream with `async for`, without an end")
        where = traceback.extract_tb(error.__traceback__)[-1]
        found = f"{type(error).__name__}: {error} ({where.filename.rpartition('/')[2]}, line {where.lineno})"
        if not undone.events:
            raise Stop(f"agent {name} failed before it took an event: {found}") from error
        if len(undone.events) == 1:
            failed[undone.events[0].row] = found
        else:
            self._stream.requeue(undone.events)

    async def _run(self) -> None:
        running = self._agent.fun(self._stream)
        if not inspect.isasyncgen(running):
            await running
            return
        async for value in running:
            for sink in self._agent.sinks:
                if isinstance(sink, Topic):
                    sink.send_soon(value=value)
                elif inspect.isawaitable(found := sink(value)):
                    await found

    async def close(self) -> None:
        """End the instance; what it had taken and not completed is dropped."""
        task, self._task, self._stream = self._task, None, Stream(self._agent.name)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
