"""An agent as a stage: decoded events in; what it sends and what changed in its tables out, in one transaction."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from millstream.core.batch import Batch, Rejection
from millstream.runtime.agents.actor import Actor
from millstream.runtime.agents.app import Agent, App
from millstream.runtime.agents.context import Event, Scope, Sent
from millstream.runtime.agents.table import loaded_key
from millstream.runtime.flow import Flow
from millstream.runtime.fold_stage import FoldStage, Restored
from millstream.runtime.log.protocol import AssignedReader
from millstream.runtime.log.records import Output, Records
from millstream.runtime.work import Processed, Progress, StateSize

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]

FAILED = "agent-failed"
"""Reason of events on which an agent's function raised."""


class AgentStage(FoldStage):
    """The stage of an agent; its state is the app's tables.

    Parameters
    ----------
    agent : Agent
    app : App
    changelog : str
        Topic of the tables' entries, with as many partitions as the input.
    fields : sequence of str
        Of the records of the input.
    validate : callable
        Records to sound rows.
    dead_letters : callable
        Makes the dead letters of what was rejected.
    run : callable
        Runs a coroutine on the event loop of the app and returns its result.
    """

    replayed = ()

    def __init__(
        self,
        agent: Agent,
        app: App,
        changelog: str,
        fields: Sequence[str],
        validate: Callable[[Records], Flow],
        dead_letters: Callable[[Iterable[Flow], int], list[Output]],
        run: Run[Any],
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.name = agent.name
        self.inputs: tuple[str, ...] = (agent.topic.name,)
        self._app = app
        self._changelog = changelog
        self._fields = tuple(fields)
        self._validate = validate
        self._dead_letters = dead_letters
        self._run = run
        self._clock_s = clock_s
        self._actor = Actor(agent, app.tables_by_name)
        self._partitions: set[int] = set()

    def restore(self, log: AssignedReader, partition: int, on_progress: Progress) -> Restored:
        """See `FoldStage.restore`: the entries in the changelog are those of the committed offset."""
        tables = self._app.tables_by_name
        rows = 0
        for records in log.read(self._changelog, partition, 0, None):
            for key, value in zip(records.keys, records.values, strict=True):
                name, stored = json.loads(key or b"null")
                if name not in tables:  # no longer declared
                    continue
                tables[name].claim(self.name)
                part = tables[name].partitions.setdefault(partition, {})
                if value is None:
                    part.pop(loaded_key(stored), None)
                else:
                    part[loaded_key(stored)] = json.loads(value)
            rows += len(records)
            on_progress(f"{self.name}[{partition}]: {rows} state rows read")
        self._partitions.add(partition)
        return Restored(rows)

    def fold(self, records: Records) -> None:
        """See `FoldStage.fold`: no event is processed again."""

    def drop(self, partition: int) -> None:
        """See `Work.drop`; variables of the function may be ahead of the log, so that it begins again as well."""
        self._partitions.discard(partition)
        for table in self._tables():
            table.partitions.pop(partition, None)
        self._run(self._actor.close())

    def _tables(self) -> list[Any]:
        return [each for each in self._app.tables_by_name.values() if each.owner in (None, self.name)]

    def process(self, batches: Sequence[Records], now_ms: int) -> Processed:
        """See `Work.process`."""
        started_s = self._clock_s()
        (records,) = batches
        flow = self._validate(records)
        scopes, failed = self._run(self._actor.process(_events(flow, self._fields)))
        if failed:
            sound = np.array([int(row) not in failed for row in flow.rows], dtype=np.bool_)
            at = {int(row): position for position, row in enumerate(flow.rows)}
            flow = flow.keep(sound, [Rejection(at[row], FAILED, "", detail) for row, detail in failed.items()])
        outputs = [
            *_outputs([sent for scope in scopes for sent in scope.sent]),
            *self._changes(scopes),
            *self.idle(now_ms),
            *self._dead_letters([flow], now_ms),
        ]
        return Processed((flow,), outputs, seconds={"agent": self._clock_s() - started_s})

    def idle(self, now_ms: int) -> list[Output]:
        """Return what timers and tasks have sent."""
        with self._app.outside_lock:
            sent = [self._app.outside.popleft() for _ in range(len(self._app.outside))]
        return _outputs(sent)

    def _changes(self, scopes: Sequence[Scope]) -> list[Output]:
        changed: dict[int, dict[tuple[str, Any], None]] = {}
        for scope in scopes:
            for name, partition, key in scope.before:
                changed.setdefault(partition, {})[name, key] = None
        outputs = []
        for partition, entries in changed.items():
            rows = [self._app.tables_by_name[name].row(partition, key) for name, key in entries]
            outputs.append(Output(self._changelog, [key for key, _ in rows], [value for _, value in rows], partition))
        return outputs

    def checkpoint(self, partition: int, next_offsets: Mapping[str, int]) -> list[Output]:
        """See `Work.checkpoint`: each transaction has stored what it changed."""
        return []

    def state_size(self, partition: int) -> StateSize | None:
        """See `Work.state_size`: entries of the tables."""
        if partition not in self._partitions:
            return None
        entries = sum(len(table.partitions.get(partition, ())) for table in self._tables() if table.owner == self.name)
        return StateSize(0, entries, entries, 0)


def rows_of(batch: Batch, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of a batch as dicts of these columns; None where null."""
    cells = []
    for name in names:
        values = batch.columns[name].tolist()
        nulls = batch.nulls.get(name)
        cells.append(values if nulls is None else [None if none else v for v, none in zip(values, nulls, strict=True)])
    return [dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)]


def _events(flow: Flow, names: Sequence[str]) -> list[Event]:
    records = flow.records
    found = []
    for row, value in zip(flow.rows.tolist(), rows_of(flow.batch, names), strict=True):
        key = records.keys[row]
        found.append(
            Event(
                None if key is None else key.decode(errors="replace"),
                value,
                records.topic,
                int(records.partitions[row]),
                int(records.offsets[row]),
                int(records.timestamps_ms[row]),
                row,
            )
        )
    return found


def _outputs(sent: Sequence[Sent]) -> list[Output]:
    """Return records as outputs; those of one topic keep their order."""
    found: dict[tuple[str, int | None, bool], list[Sent]] = {}
    for each in sent:
        found.setdefault((each.topic, each.partition, each.timestamp_ms is None), []).append(each)
    return [
        Output(
            topic,
            [each.key for each in records],
            [each.value for each in records],
            partition,
            None if unstamped else [each.timestamp_ms or 0 for each in records],
        )
        for (topic, partition, unstamped), records in found.items()
    ]
