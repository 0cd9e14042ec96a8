"""The stage loop: one micro-batch, one transaction; checkpoints; partitions coming and going."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.errors import Rebalanced, Stop
from services.ports import ViewRows
from services.transport.dead_letters import DeadLetterLimit
from services.transport.log import Assignment, StageLog
from services.transport.records import Output, Records
from services.transport.recovery import Recovered, checkpoint, recover
from services.transport.stage import Processed, Stage

logger = logging.getLogger(__name__)


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

    def processed(self, stage: str, records: Records, processed: Processed, seconds: float) -> None: ...

    def checkpointed(self, stage: str, rows: int, seconds: float) -> None: ...

    def recovered(self, stage: str, partition: int, recovered: Recovered, seconds: float) -> None: ...

    def revoked(self, stage: str, partitions: Sequence[int]) -> None: ...


class Unobserved:
    """An `Observer` that tells nobody."""

    def processed(self, stage: str, records: Records, processed: Processed, seconds: float) -> None:
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
    now_ms, clock_s : callables
        Wall clock for stamps, monotonic clock for intervals.

    Attributes
    ----------
    progress_at_s : float
        When the loop last came round or recovery told of progress.
    joined : bool
        Whether partitions are here and recovered.
    transacting_since_s : float or None
        When the transaction that is being written was begun.
    """

    def __init__(
        self,
        stage: Stage,
        log: StageLog,
        limits: LoopLimits,
        dead_letter_limit: DeadLetterLimit,
        view: View | None,
        observer: Observer,
        before_batch: Callable[[], None] = lambda: None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stage = stage
        self.log = log
        self.progress_at_s = clock_s()
        self.joined = False
        self.transacting_since_s: float | None = None
        self._limits = limits
        self._dead_letter_limit = dead_letter_limit
        self._view = view
        self._observer = observer
        self._before_batch = before_batch
        self._now_ms = now_ms
        self._clock_s = clock_s
        self._next_offsets: dict[int, int] = {}
        self._stale: dict[int, tuple[bytes, ...]] = {}
        self._checkpointed_at_s = clock_s()
        self._changed: set[int] = set()

    @property
    def partitions(self) -> tuple[int, ...]:
        """Partitions this worker owns and has recovered."""
        return tuple(sorted(self._next_offsets))

    def next_offset(self, partition: int) -> int:
        """Return the offset this worker will read next."""
        return self._next_offsets.get(partition, -1)

    def start(self) -> None:
        """Join the stage's group."""
        self.log.subscribe(self.stage.plan.input, Assignment(self._assigned, self._revoked, self._lost))

    def rejoin(self) -> None:
        """Throw all state away and join the group anew: what a restart does, without the restart."""
        self._lost(self.partitions)
        self.joined, self.transacting_since_s = False, None
        self.log.rejoin()

    def poll(self, timeout_s: float) -> Records:
        """Return the next micro-batch, perhaps empty."""
        return self.log.poll(self._limits.batch_records, timeout_s)

    def handle(self, records: Records) -> None:
        """Process a micro-batch in one transaction, and what is due besides.

        Raises
        ------
        Rebalanced
            The transaction was aborted; `rejoin` helps.
        Stop
            The transaction was aborted or should not be made; state in memory must be thrown away.
        """
        started_s = self._clock_s()
        if len(records):
            self._before_batch()
            processed = self.stage.process(records, self._now_ms())
            self._dead_letter_limit.update(len(records), processed.flow.rejections)
            moved = records.next_offsets()
            committing_s = self._clock_s()
            self._transact(processed.outputs, moved)
            processed.seconds["commit"] = self._clock_s() - committing_s
            logger.debug("%s: %s records, %s", self.stage.plan.name, len(records), processed.seconds)
            self._next_offsets.update(moved)
            self._changed.update(moved)
            if self._view is not None and processed.view_rows:
                self._view.offer(processed.view_rows)
            self._observer.processed(self.stage.plan.name, records, processed, self._clock_s() - started_s)
        if (self._clock_s() - self._checkpointed_at_s) * 1000 >= self._limits.checkpoint_interval_ms:
            self.checkpoint(sorted(self._changed))
        self._refill()
        # Only a poll that returned has finished handing out partitions and recovering them.
        self.joined = bool(self._next_offsets)
        self.progress_at_s = self._clock_s()

    def _transact(self, outputs: Sequence[Output], next_offsets: Mapping[int, int]) -> None:
        self.transacting_since_s = self._clock_s()
        self.log.transact(outputs, next_offsets)
        self.transacting_since_s = None

    def checkpoint(self, partitions: Iterable[int]) -> None:
        """Write the changed state of these partitions, with the offsets it is valid for, in one transaction.

        The offsets go along although they are committed already: they make the group fence a worker that has lost
        its partitions and does not know yet.
        """
        started_s = self._clock_s()
        due = [partition for partition in partitions if partition in self._next_offsets]
        stores = self.stage.featurize.stores
        outputs: list[Output] = []
        for partition in due:
            stores[partition].expire()
            outputs.append(
                checkpoint(
                    stores[partition],
                    self.stage.plan.changelog,
                    partition,
                    self._next_offsets[partition],
                    self._stale.get(partition, ()),
                )
            )
        if outputs:
            self._transact(outputs, {partition: self._next_offsets[partition] for partition in due})
            for partition in due:
                stores[partition].mark_clean()
                self._stale.pop(partition, None)
            self._changed.difference_update(due)
            rows = sum(len(output.keys) for output in outputs)
            self._observer.checkpointed(self.stage.plan.name, rows, self._clock_s() - started_s)
        self._checkpointed_at_s = self._clock_s()

    def _refill(self) -> None:
        if self._view is None or (epoch := self._view.refill_wanted(self.stage.plan.name)) is None:
            return
        for partition in self.partitions:
            self._offer_all(partition)
        self._view.refilled(epoch, self.stage.plan.name)

    def _offer_all(self, partition: int) -> None:
        if self._view is not None:
            store = self.stage.featurize.stores[partition]
            self._view.offer(list(self.stage.featurize.online(store, store.all_slots())))

    def _assigned(self, partition: int, committed: int | None) -> int:
        started_s = self._clock_s()

        def progress(words: str) -> None:
            self.progress_at_s = self._clock_s()
            logger.debug(words)

        recovered = recover(self.stage, self.log, partition, committed, self._limits.batch_records, progress)
        self._next_offsets[partition] = recovered.next_offset
        logger.info(
            "%s[%s]: recovered from %s state rows and %s replayed records; going on at offset %s",
            self.stage.plan.name,
            partition,
            recovered.rows,
            recovered.replayed,
            recovered.next_offset,
        )
        if recovered.stale:
            self._stale[partition] = recovered.stale
        if recovered.stale or recovered.replayed:
            self._changed.add(partition)
        # What was committed last may not have reached the online store before the crash; newer rows win there anyway.
        self._offer_all(partition)
        self._observer.recovered(self.stage.plan.name, partition, recovered, self._clock_s() - started_s)
        return recovered.next_offset

    def _revoked(self, partitions: Sequence[int]) -> None:
        try:
            self.checkpoint([partition for partition in partitions if partition in self._changed])
        except (Rebalanced, Stop) as error:
            # The next owner replays a little more; it needs nothing from us.
            logger.warning("no last checkpoint of %s%s: %s", self.stage.plan.name, list(partitions), error)
        self._lost(partitions)

    def _lost(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self.stage.featurize.stores.pop(partition, None)
            self._next_offsets.pop(partition, None)
            self._stale.pop(partition, None)
            self._changed.discard(partition)
        self._observer.revoked(self.stage.plan.name, partitions)

    def close(self) -> None:
        """Checkpoint, hand the partitions back and leave."""
        self.log.close()
