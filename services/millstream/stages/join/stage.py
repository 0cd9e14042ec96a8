"""The join stage: co-partitioned predictions and labels, joined in a ledger on disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from millstream.core.avro.encode import RecordWriter
from millstream.core.generations import generation_of
from millstream.core.ledger import tally
from millstream.core.ledger.recovery import Recovery, plan_recovery
from millstream.ports import LedgerStore, ViewRows
from millstream.runtime.dead_letters import dead_letter_output
from millstream.runtime.flow import Flow
from millstream.runtime.fold_stage import replay
from millstream.runtime.log.protocol import LogReader
from millstream.runtime.log.records import Output, Records, empty_records
from millstream.runtime.work import Processed, Progress, Recovered, StateSize
from millstream.stages.join.outputs import JoinOutput
from millstream.stages.join.step import Join
from millstream.topology import EXAMPLES, JOIN, JOIN_CHANGELOG, LABELS, SCORED

logger = logging.getLogger(__name__)

_SWEPT_AT_ONCE = 1_000


class JoinStage:
    """`Work` of the label loop; its state is one `Join` per partition.

    Parameters
    ----------
    validate : mapping of str to callable
        By input topic: records to sound rows.
    open_store : callable
        Returns the ledger's store of a partition.
    join : callable
        Makes a `Join` on a store.
    dead_letters : RecordWriter
    largest_letter_bytes : int
        Largest record the dead-letter topic takes.
    """

    name = JOIN
    inputs: tuple[str, ...] = (SCORED, LABELS)
    written_behind = True

    def __init__(
        self,
        validate: Mapping[str, Callable[[Records], Flow]],
        open_store: Callable[[int], LedgerStore],
        join: Callable[[LedgerStore], Join],
        dead_letters: RecordWriter,
        largest_letter_bytes: int,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._validate = validate
        self._open_store = open_store
        self._join = join
        self._dead_letters = dead_letters
        self._largest_letter_bytes = largest_letter_bytes
        self._clock_s = clock_s
        self._stores: dict[int, LedgerStore] = {}
        self._joins: dict[int, Join] = {}
        self._joined: dict[int, JoinOutput] = {}

    def open(
        self, log: LogReader, partition: int, committed: Mapping[str, int | None], on_progress: Progress
    ) -> Recovered:
        """See `Work.open`."""
        store = self._stores[partition] = self._open_store(partition)
        join = self._joins[partition] = self._join(store)
        retained = {topic: range(log.beginning(topic, partition), log.end(topic, partition)) for topic in self.inputs}
        valid_for = store.offsets()
        plan = plan_recovery(valid_for, committed, retained)
        self._log_recovery(partition, plan)
        if plan.discard:
            join.clear()

        def fold(records: Records) -> None:
            flows = self._flows([records])
            join.apply(flows[SCORED], flows[LABELS], {records.topic: int(records.offsets[-1]) + 1})

        replayed = replay(log, partition, plan.replay, fold, on_progress, JOIN)
        # A ledger that follows a topic which was created again does not have what it counted of the earlier one.
        if (plan.discard or not valid_for) and not any(map(generation_of, plan.go_on.values())):
            join.cover(_published_days(log, partition))
        # A crash may have come between the ledger and what is published of it: the next checkpoint publishes it again.
        return Recovered(plan.go_on, tally.counters(join.account.report.tally)["pending"], replayed, True)

    def _log_recovery(self, partition: int, plan: Recovery) -> None:
        if plan.discard:
            logger.warning("%s[%s]: the ledger is ahead of its group or its topics and is rebuilt", JOIN, partition)
        for topic, count in plan.lost.items():
            logger.warning("%s[%s]: %s records of %s were deleted before they were read", JOIN, partition, count, topic)

    def drop(self, partition: int) -> None:
        """See `Work.drop`."""
        self._joins.pop(partition, None)
        self._joined.pop(partition, None)
        store = self._stores.pop(partition, None)
        if store is not None:
            store.close()

    def process(self, batches: Sequence[Records], now_ms: int) -> Processed:
        """See `Work.process`."""
        started_s = self._clock_s()
        flows = self._flows(batches)
        validated_s = self._clock_s()
        self._joined.clear()
        labels: list[Flow] = []
        keys: list[bytes] = []
        examples: list[bytes] = []
        rekeyed: list[Output] = []
        for partition in sorted({int(p) for records in batches for p in np.unique(records.partitions)}):
            mine = {topic: _of_partition(flow, partition) for topic, flow in flows.items()}
            joined = self._joins[partition].process(mine[SCORED], mine[LABELS], now_ms)
            self._joined[partition] = joined
            labels.append(joined.labels)
            keys += joined.keys
            examples += joined.examples
            rekeyed += joined.rekeyed
        outputs = [Output(EXAMPLES, keys, examples, partition=0), *rekeyed] if examples else []
        for flow in (*flows.values(), *labels):
            if flow.rejections:
                outputs.append(
                    dead_letter_output(
                        flow.records, flow.rejections, JOIN, now_ms, self._dead_letters, self._largest_letter_bytes
                    )
                )
        seconds = {"validate": validated_s - started_s, "join": self._clock_s() - validated_s}
        return Processed((*flows.values(), *labels), outputs, seconds=seconds)

    def _flows(self, batches: Sequence[Records]) -> dict[str, Flow]:
        given = {records.topic: records for records in batches}
        return {topic: self._validate[topic](given.get(topic, empty_records(topic))) for topic in self.inputs}

    def written(self, processed: Processed, next_offsets: Mapping[str, Mapping[int, int]]) -> None:
        """See `Work.written`: the ledger is written behind the commit, with the offsets it is then valid for."""
        for partition, joined in self._joined.items():
            mine = {topic: offsets[partition] for topic, offsets in next_offsets.items() if partition in offsets}
            self._joins[partition].write(joined, mine)
        self._joined.clear()

    def checkpoint(self, partition: int, next_offsets: Mapping[str, int]) -> list[Output]:
        """See `Work.checkpoint`: forgets what is past the horizon, and publishes how complete the labels are."""
        join = self._joins[partition]
        report = join.account.report
        swept = join.sweep(min(report.scored_to_ms, report.labels_to_ms), _SWEPT_AT_ONCE)
        if swept.unmatched:
            shown = ", ".join(each.decode(errors="replace") for each in swept.unmatched[:5])
            logger.warning(
                "%s[%s]: %s labels are of events that never came (%s ...)",
                JOIN, partition, len(swept.unmatched), shown,
            )  # fmt: skip
        return [Output(JOIN_CHANGELOG, *join.account.messages(partition), 0)]

    def checkpointed(self, partition: int) -> None:
        """See `Work.checkpointed`; the ledger is on disk already."""
        self._joins[partition].account.mark_published()

    def online(self, partition: int) -> list[ViewRows]:
        """See `Work.online`: labels have no online view of their own."""
        return []

    def state_size(self, partition: int) -> StateSize | None:
        """See `Work.state_size`."""
        join = self._joins.get(partition)
        if join is None:
            return None
        report = join.account.report
        counts = tally.counters(report.tally)
        held = sum(counts[name] for name in ("pending", "labelled", "retracted", "waiting"))
        return StateSize(max(0, report.scored_to_ms), held, held, 0)


def _published_days(log: LogReader, partition: int) -> list[int]:
    """Return the days, since 1970-01-01 UTC, of which a partition has published how many predictions there are."""
    counted: dict[bytes, bool] = {}
    for records in log.read(JOIN_CHANGELOG, 0, 0, None):
        for key, value in zip(records.keys, records.values, strict=True):
            source, _, day = (key or b"").partition(b"|")
            if source == b"%d" % partition and day:
                counted[day] = value is not None
    return [int(day) for day, there in counted.items() if there]


def _of_partition(flow: Flow, partition: int) -> Flow:
    """Return the rows of one partition; records rejected earlier are reported once, elsewhere."""
    return replace(flow, rejections=(), counts={}).keep(flow.partitions == partition)
