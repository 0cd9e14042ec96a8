"""The stage loop: one micro-batch, one transaction; checkpoints; partitions coming and going."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.errors import Rebalanced, Stop
from services.ports import ViewRows
from services.transport.dead_letters import DeadLetterLimit
from services.transport.log import Assignment, StageLog
from services.transport.records import Output, Place, Records, next_offsets
from services.transport.work import Processed, Recovered, Work

logger = logging.getLogger(__name__)

_TURN_MS = 250


class View(Protocol):
    """The write-behind side of the online store, as the loop sees it; none of it waits."""

    def refill_wanted(self, source: str) -> str | None:
        """Return an epoch name when the store lost its data and all rows of this source are wanted, else None."""

    def offer(self, rows: Sequence[ViewRows]) -> None:
        """Take rows to be written when possible."""

    def refilled(self, epoch: str, source: str) -> None:
        """Tell that this loop has offered every row it has."""


class Observer(Protocol):
    """Who is told what happened; none of it may raise or wait."""

    def processed(self, stage: str, records: int, processed: Processed, seconds: float) -> None: ...

    def checkpointed(self, stage: str, rows: int, seconds: float) -> None: ...

    def recovered(self, stage: str, partition: int, recovered: Recovered, seconds: float) -> None: ...

    def revoked(self, stage: str, partitions: Sequence[int]) -> None: ...


class Unobserved:
    """An `Observer` that tells nobody."""

    def processed(self, stage: str, records: int, processed: Processed, seconds: float) -> None:
        """Ignore."""

    def checkpointed(self, stage: str, rows: int, seconds: float) -> None:
        """Ignore."""

    def recovered(self, stage: str, partition: int, recovered: Recovered, seconds: float) -> None:
        """Ignore."""

    def revoked(self, stage: str, partitions: Sequence[int]) -> None:
        """Ignore."""


@dataclass(frozen=True, slots=True)
class LoopLimits:
    """The loop's numbers; see `services.settings.Settings` for each."""

    batch_records: int
    checkpoint_interval_ms: int


class StageLoop:
    """Drive one stage on one log.

    `poll` and `handle` are called in turn, never at once; rebalances happen inside `poll`, so no transaction is ever
    open when partitions move.

    Parameters
    ----------
    view : View or None
        None where no online store is kept (replay, benchmarks).
    before_batch : callable
        Called before each micro-batch; where a promoted model is swapped in.
    when_idle : callable
        From the wall clock to what is to be written although nothing came.
    now_ms, clock_s : callables
        Wall clock for stamps, monotonic clock for intervals.

    Attributes
    ----------
    progress_at_s : float
        When the loop last came round or recovery told of progress.
    joined : bool
        Whether partitions were given out, and those that are here are recovered.
    transacting_since_s : float or None
        When the transaction that is being written was begun.
    """

    def __init__(
        self,
        work: Work,
        log: StageLog,
        limits: LoopLimits,
        dead_letter_limit: DeadLetterLimit,
        view: View | None,
        observer: Observer,
        before_batch: Callable[[], None] = lambda: None,
        when_idle: Callable[[int], Sequence[Output]] = lambda _now_ms: (),
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.work = work
        self.log = log
        self.progress_at_s = clock_s()
        self.joined = False
        self.transacting_since_s: float | None = None
        self._limits = limits
        self._dead_letter_limit = dead_letter_limit
        self._view = view
        self._observer = observer
        self._before_batch = before_batch
        self._when_idle = when_idle
        self._now_ms = now_ms
        self._clock_s = clock_s
        self._next_offsets: dict[Place, int] = {}
        self._checkpointed_at_s = clock_s()
        self._changed: dict[int, None] = {}  # as a set that keeps order: who waits longest for a checkpoint is first

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.work.name

    @property
    def partitions(self) -> tuple[int, ...]:
        """Partitions this worker owns and has recovered."""
        return tuple(sorted({partition for _, partition in self._next_offsets.copy()}))

    @property
    def next_offsets(self) -> dict[Place, int]:
        """The offsets this worker will read next."""
        return self._next_offsets.copy()

    def start(self) -> None:
        """Join the stage's group."""
        self.log.subscribe(self.work.inputs, Assignment(self._assigned, self._revoked, self._lost))

    def rejoin(self) -> None:
        """Throw all state away and join the group anew: what a restart does, without the restart."""
        self._lost(self.partitions)
        self.joined, self.transacting_since_s = False, None
        self.log.rejoin()

    def poll(self, timeout_s: float) -> list[Records]:
        """Return the next micro-batch: what there is, by input topic."""
        return self.log.poll(self._limits.batch_records, timeout_s)

    def handle(self, batches: Sequence[Records]) -> None:
        """Process a micro-batch in one transaction, and what is due besides.

        Raises
        ------
        Rebalanced
            The transaction was aborted; `rejoin` helps.
        Stop
            The transaction was aborted or should not be made; state in memory must be thrown away.
        """
        started_s = self._clock_s()
        if batches:
            self._before_batch()
            processed = self.work.process(batches, self._now_ms())
            count = sum(map(len, batches))
            self._dead_letter_limit.update(count, [each for flow in processed.flows for each in flow.rejections])
            moved = next_offsets(batches)
            committing_s = self._clock_s()
            self._transact(processed.outputs, moved)
            processed.seconds["commit"] = self._clock_s() - committing_s
            logger.debug("%s: %s records, %s", self.name, count, processed.seconds)
            self._next_offsets.update(moved)
            self._changed |= dict.fromkeys(partition for _, partition in moved)
            self.work.written(processed, _by_topic(moved))
            if self._view is not None and processed.view_rows:
                self._view.offer(processed.view_rows)
            self._observer.processed(self.name, count, processed, self._clock_s() - started_s)
        elif told := self._when_idle(self._now_ms()):
            # What made it speak follows from no input: the state after it must be what recovery begins with.
            self.checkpoint(self.partitions, told)
        self._checkpoint_in_turn()
        self._refill()
        # Only a poll that returned has finished handing out partitions and recovering them.
        self.joined = self.log.member
        self.progress_at_s = self._clock_s()

    def _transact(self, outputs: Sequence[Output], next_offsets: Mapping[Place, int]) -> None:
        self.transacting_since_s = self._clock_s()
        self.log.transact(outputs, next_offsets)
        self.transacting_since_s = None

    def _checkpoint_in_turn(self) -> None:
        """Checkpoint those that wait longest, so that each has its turn within the interval.

        All at once would keep the events that arrive meanwhile waiting for as many times longer.
        """
        interval_ms, owned = self._limits.checkpoint_interval_ms, len(self.partitions)
        turn_ms = max(interval_ms / max(1, owned), min(_TURN_MS, interval_ms))
        if (self._clock_s() - self._checkpointed_at_s) * 1000 >= turn_ms:
            self.checkpoint(list(itertools.islice(self._changed, math.ceil(owned * turn_ms / interval_ms))))

    def checkpoint(self, partitions: Iterable[int], told: Sequence[Output] = ()) -> None:
        """Write the changed state of these partitions, with the offsets it is valid for, in one transaction.

        What is ``told`` besides goes along.

        The offsets go along although they are committed already: they make the group fence a worker that has lost
        its partitions and does not know yet.
        """
        started_s = self._clock_s()
        mine = set(self.partitions)
        due = [partition for partition in partitions if partition in mine]
        offsets = {place: offset for place, offset in self._next_offsets.items() if place[1] in due}
        outputs = [
            output
            for partition in due
            for output in self.work.checkpoint(partition, {t: at for (t, p), at in offsets.items() if p == partition})
        ]
        if outputs or told:
            self._transact([*told, *outputs], offsets)
            for partition in due:
                self.work.checkpointed(partition)
            rows = sum(len(output.keys) for output in outputs)
            self._observer.checkpointed(self.name, rows, self._clock_s() - started_s)
        for partition in due:
            self._changed.pop(partition, None)
        self._checkpointed_at_s = self._clock_s()

    def _refill(self) -> None:
        if self._view is None or (epoch := self._view.refill_wanted(self.name)) is None:
            return
        for partition in self.partitions:
            self._offer_all(partition)
        self._view.refilled(epoch, self.name)

    def _offer_all(self, partition: int) -> None:
        if self._view is not None:
            self._view.offer(self.work.online(partition))

    def _assigned(self, partition: int, committed: Mapping[str, int | None]) -> Mapping[str, int]:
        started_s = self._clock_s()

        def progress(words: str) -> None:
            self.progress_at_s = self._clock_s()
            logger.debug(words)

        recovered = self.work.open(self.log, partition, committed, progress)
        self._next_offsets |= {(topic, partition): offset for topic, offset in recovered.next_offsets.items()}
        logger.info(
            "%s[%s]: recovered from %s state rows and %s replayed records; going on at offset %s",
            self.name,
            partition,
            recovered.rows,
            recovered.replayed,
            ", ".join(map(str, recovered.next_offsets.values())),
        )
        if recovered.changed:
            self._changed[partition] = None
        # What was committed last may not have reached the online store before the crash; newer rows win there anyway.
        self._offer_all(partition)
        self._observer.recovered(self.name, partition, recovered, self._clock_s() - started_s)
        return recovered.next_offsets

    def _revoked(self, partitions: Sequence[int]) -> None:
        try:
            self.checkpoint([partition for partition in partitions if partition in self._changed])
        except (Rebalanced, Stop) as error:
            # The next owner replays a little more; it needs nothing from us.
            logger.warning("no last checkpoint of %s%s: %s", self.name, list(partitions), error)
        self._lost(partitions)

    def _lost(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self.work.drop(partition)
            for topic in self.work.inputs:
                self._next_offsets.pop((topic, partition), None)
            self._changed.pop(partition, None)
        self._observer.revoked(self.name, partitions)

    def close(self) -> None:
        """Checkpoint, hand the partitions back and leave."""
        self.log.close()


def _by_topic(offsets: Mapping[Place, int]) -> dict[str, dict[int, int]]:
    found: dict[str, dict[int, int]] = {}
    for (topic, partition), offset in offsets.items():
        found.setdefault(topic, {})[partition] = offset
    return found
