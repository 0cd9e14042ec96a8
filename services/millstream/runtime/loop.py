"""The stage loop: one micro-batch, one transaction; checkpoints; partitions coming and going."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from millstream.errors import Aborted, Retry, Stop
from millstream.runtime.checkpoint_turns import CheckpointTurns
from millstream.runtime.dead_letters import DeadLetterLimit
from millstream.runtime.log.protocol import Assignment, StageLog
from millstream.runtime.log.records import Output, Place, Records, next_offsets
from millstream.runtime.observer import Observer
from millstream.runtime.transactions import Transaction, Transactions
from millstream.runtime.work import View, Work

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoopLimits:
    """The loop's numbers; see `millstream.settings.Settings` for each."""

    batch_records: int
    checkpoint_interval_ms: int


class StageLoop:
    """Drive one stage on one log.

    `poll` and `handle` are called in turn, never at once. Rebalances happen inside `poll`, and wait for a transaction
    that is still being written.

    Behind a backlog (a micro-batch is full), the next micro-batch is polled and processed while the transaction of this
    one is written: the broker's answers cost no time of the stage then. Otherwise it is waited for, since what arrives
    meanwhile would only be held back. State is at most one micro-batch ahead of the log, and thrown away with it.

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
        self._limits = limits
        self._dead_letter_limit = dead_letter_limit
        self._view = view
        self._observer = observer
        self._before_batch = before_batch
        self._when_idle = when_idle
        self._now_ms = now_ms
        self._clock_s = clock_s
        self._next_offsets: dict[Place, int] = {}
        self._turns = CheckpointTurns(limits.checkpoint_interval_ms, clock_s)
        self._changed: dict[int, None] = {}  # as a set that keeps order: who waits longest for a checkpoint is first
        self._transactions = Transactions(log, f"write-{work.name}", clock_s)

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.work.name

    @property
    def partitions(self) -> tuple[int, ...]:
        """Partitions this worker owns and has recovered."""
        return tuple(sorted({partition for _, partition in self._next_offsets.copy()}))

    @property
    def transacting_since_s(self) -> float | None:
        """When the transaction that is being written was begun."""
        return self._transactions.since_s

    @property
    def next_offsets(self) -> dict[Place, int]:
        """The offsets this worker has committed, or recovered to."""
        return self._next_offsets.copy()

    def start(self) -> None:
        """Join the stage's group."""
        self.log.subscribe(self.work.inputs, Assignment(self._assigned, self._revoked, self._lost))

    def recover(self, *, as_member: bool) -> None:
        """Drop all state and recover it from the log: what a restart does, without the restart.

        Parameters
        ----------
        as_member : bool
            Keep the membership in the group if possible; else leave it and join it again.
        """
        self._lost(self.partitions)
        self._transactions.forget()
        if as_member:
            try:
                self.log.rewind()
                return
            except Retry as error:
                logger.warning("%s: %s; rejoining the group", self.name, error)
                self._lost(self.partitions)
        self.joined = False
        self.log.rejoin()

    def poll(self, timeout_s: float) -> list[Records]:
        """Return the next micro-batch: what there is, by input topic."""
        polled = self.log.poll(self._limits.batch_records, 0.0 if self._transactions.begun else timeout_s)
        if not polled:
            self._settle()
        return polled

    def handle(self, batches: Sequence[Records]) -> None:
        """Process a micro-batch in one transaction, and what is due besides.

        Raises
        ------
        Aborted
            A transaction was aborted; state in memory is ahead of the log until `recover`.
        Stop
            A transaction was aborted or should not be made; state in memory must be dropped.
        """
        if batches:
            self._take(batches)
        elif told := self._when_idle(self._now_ms()):
            # What made it speak follows from no input: the state after it must be what recovery begins with.
            self.checkpoint(self.partitions, told)
        if due := self._turns.due(self._changed, len(self.partitions)):
            self.checkpoint(due)
        self._refill()
        # Only a poll that returned has finished handing out partitions and recovering them.
        self.joined = self.log.member
        self.progress_at_s = self._clock_s()

    def _take(self, batches: Sequence[Records]) -> None:
        self._before_batch()
        processed = self.work.process(batches, self._now_ms())
        count = sum(map(len, batches))
        self._dead_letter_limit.update(count, [each for flow in processed.flows for each in flow.rejections])
        self._settle()
        transaction = Transaction.of(processed, next_offsets(batches), count)
        if not self.work.written_behind and self.log.atomic:
            touched = dict.fromkeys(partition for _, partition in transaction.moved)
            transaction = self._with_checkpoint(
                transaction, self._turns.due(self._changed | touched, len(self.partitions))
            )
        # A checkpoint is of the state as it is now, and a ledger follows what is written: nothing may come between.
        if count < self._limits.batch_records or transaction.due or self.work.written_behind:
            self._transactions.write(transaction)
            self._written(transaction)
        else:
            self._transactions.begin(transaction)

    def _settle(self) -> None:
        if (transaction := self._transactions.settle()) is not None:
            self._written(transaction)

    def _written(self, transaction: Transaction) -> None:
        self._next_offsets.update(transaction.moved)
        if (processed := transaction.processed) is not None:
            logger.debug("%s: %s records, %s", self.name, transaction.records, transaction.seconds)
            self._changed |= dict.fromkeys(partition for _, partition in transaction.moved)
            self.work.written(processed, _by_topic(transaction.moved))
            if self._view is not None and processed.view_rows:
                self._view.offer(processed.view_rows)
            self._observer.processed(self.name, transaction.records, processed, transaction.seconds)
        for partition in transaction.due:
            self.work.checkpointed(partition)
            self._changed.pop(partition, None)
        if transaction.due:
            self._observer.checkpointed(self.name, transaction.rows, transaction.checkpoint_s)

    def _with_checkpoint(self, transaction: Transaction, due: Sequence[int]) -> Transaction:
        """Return the transaction with what stores the state of these partitions, and the offsets that it is valid for.

        Offsets that are committed already go along: they make the group fence a worker that has lost its partitions
        and does not know yet.
        """
        if not due:
            return transaction
        started_s = self._clock_s()
        known = {**self._next_offsets, **transaction.moved}
        offsets = {place: offset for place, offset in known.items() if place[1] in due}
        outputs = [
            output
            for partition in due
            for output in self.work.checkpoint(partition, {t: at for (t, p), at in offsets.items() if p == partition})
        ]
        return replace(
            transaction,
            outputs=[*transaction.outputs, *outputs],
            moved={**transaction.moved, **offsets},
            due=list(due),
            rows=sum(len(output.keys) for output in outputs),
            checkpoint_s=self._clock_s() - started_s,
        )

    def checkpoint(self, partitions: Iterable[int], told: Sequence[Output] = ()) -> None:
        """Write the changed state of these partitions in a transaction of its own; what is ``told`` goes along."""
        self._settle()
        due = [each for each in partitions if each in self.partitions]
        transaction = self._with_checkpoint(Transaction(list(told), {}), due)
        if transaction.outputs:
            self._transactions.write(transaction)
        self._written(transaction)

    def _refill(self) -> None:
        if self._view is None or (epoch := self._view.refill_required(self.name)) is None:
            return
        self._settle()
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
            self._settle()
            self.checkpoint([each for each in partitions if each in self._changed])
        except (Aborted, Stop) as error:
            # The next owner replays a little more; it needs nothing from us. What failed is told by the next `_settle`.
            logger.warning("no last checkpoint of %s%s: %s", self.name, list(partitions), error)
        self._lost(partitions)

    def _lost(self, partitions: Sequence[int]) -> None:
        if not self._transactions.failed():  # if it was, the next `_settle` tells
            self._settle()
        for partition in partitions:
            self.work.drop(partition)
            for topic in self.work.inputs:
                self._next_offsets.pop((topic, partition), None)
            self._changed.pop(partition, None)
        self._observer.revoked(self.name, partitions)

    def close(self) -> None:
        """Checkpoint, hand the partitions back and leave; what was not committed is processed by the next owner."""
        try:
            self._settle()
        except Aborted as error:
            logger.warning("%s: the last transaction was aborted: %s", self.name, error)
            self._lost(self.partitions)
            self._transactions.forget()
        self.log.close()
        self._transactions.close()


def _by_topic(offsets: Mapping[Place, int]) -> Mapping[str, Mapping[int, int]]:
    found: dict[str, dict[int, int]] = {}
    for (topic, partition), offset in offsets.items():
        found.setdefault(topic, {})[partition] = offset
    return found
