"""What a stage writes to Kafka: outputs and offsets in one transaction, or at least once.

Exactly once is KIP-98 with KIP-447: outputs, checkpoint rows and the group's offsets are one transaction, and the
group metadata sent along fences a worker that no longer owns its partitions.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from millstream.adapters.kafka.client import FENCED, PASSING, PERMANENT, client_logger, error_for, raise_for
from millstream.adapters.kafka.cluster import named
from millstream.errors import Aborted, MillstreamError, Retry
from millstream.runtime.log.bounded_calls import BoundedCalls
from millstream.runtime.log.records import Output
from millstream.topology import CHANGELOG

logger = logging.getLogger(__name__)

_FLUSH_S = 30.0
_ABORT_S = 5.0
_OVERDUE_S = 2.0  # librdkafka's own timeout comes first, and says more
_BOUNDED_S = 60.0


class KafkaWriter:
    """A producer, replaced by a new one after an error that it cannot recover from.

    Parameters
    ----------
    kafka : mapping
        librdkafka settings common to all clients.
    transactional_id : str or None
        None writes at least once: outputs are flushed, then offsets committed.
    transaction_timeout_ms : int
        After which the broker aborts the transaction of a worker that never came back.

    Raises
    ------
    Retry, Stop
        The transactional id could not be taken over.
    """

    def __init__(self, kafka: Mapping[str, str], transactional_id: str | None, transaction_timeout_ms: int) -> None:
        self._kafka = kafka
        self._timeout_s = transaction_timeout_ms / 1000
        self._exactly_once = transactional_id is not None
        self._delivery_errors: list[KafkaError] = []
        self._begun_s = time.monotonic()
        transaction = (
            {"transactional.id": transactional_id, "transaction.timeout.ms": transaction_timeout_ms}
            if self._exactly_once
            else {}
        )
        self._settings = {
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 2,
            # The next transaction's first write meets the previous one's markers and is retried after this long.
            "retry.backoff.ms": 5,
            "retry.backoff.max.ms": 200,
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 1_048_576,
            "message.max.bytes": 16_777_216,
            # At least once, a flush gives up before a record does, and all is written again from the first one on: of
            # each partition what was written is what came first.
            "delivery.timeout.ms": transaction_timeout_ms if self._exactly_once else int(2000 * _FLUSH_S),
            **transaction,
            **kafka,
            "logger": client_logger,
            "error_cb": self._bound_calls,
        }
        self._bounded_until_s = 0.0
        self._calls = BoundedCalls("transactional calls")
        self._hangs = False
        self._producer, self._lost = self._open(), False

    def _open(self) -> Producer:
        """Return a new producer, which aborts what an earlier one of the same transactional id left open."""
        producer = Producer(self._settings)
        if self._exactly_once:
            doing = "taking over the transactional id"
            try:
                self._call(producer.init_transactions, doing)
            except KafkaException as failure:
                raise_for(failure.args[0], doing)
        return producer

    def send(self, outputs: Sequence[Output]) -> None:
        """Begin a transaction and queue outputs; see `millstream.runtime.log.protocol.StageLog.send`."""
        if self._lost:
            self._replace()
        self._begun_s = time.monotonic()
        try:
            if self._exactly_once:
                self._producer.begin_transaction()
            for output in outputs:
                if not self._exactly_once and output.topic.endswith(CHANGELOG):
                    # State is never ahead of what was to be published with it.
                    self._acknowledged()
                self._produce(output)
        except KafkaException as failure:
            raise self._discard(failure.args[0], "writing the transaction") from failure

    def commit(self, offsets: list[TopicPartition], consumer: Consumer) -> None:
        """Write what was sent, and offsets of the consumer's group; see `StageLog.commit`."""
        if self._exactly_once:
            self._commit_transaction(offsets, consumer)
        else:
            self._flush_then_commit(offsets, consumer)

    def _bound_calls(self, _error: KafkaError) -> None:
        """From now on make calls in a thread that can be given up, for a while: a call costs less without."""
        self._bounded_until_s = time.monotonic() + _BOUNDED_S

    def _call(self, call: Callable[..., object], doing: str, *arguments: object) -> None:
        """Make a transactional call, again in place while librdkafka says it may succeed and the broker would wait."""
        deadline_s = time.monotonic() + self._timeout_s
        while True:
            left_s = max(1.0, deadline_s - time.monotonic())
            try:
                if time.monotonic() < self._bounded_until_s:
                    self._calls.call(functools.partial(call, *arguments, left_s), left_s + _OVERDUE_S)
                else:
                    call(*arguments, left_s)
                return
            except TimeoutError:
                self._hangs = True
                overdue = KafkaError(KafkaError._TIMED_OUT, f"librdkafka did not return within {left_s:.0f} s")
                raise KafkaException(overdue) from None
            except KafkaException as failure:
                error: KafkaError = failure.args[0]
                self._bound_calls(error)
                passes = (error.retriable() or error.code() in PASSING) and not error.fatal()
                if passes and not error.txn_requires_abort() and time.monotonic() < deadline_s:
                    logger.warning("%s: %s; trying again", doing, error.str())
                    continue
                raise

    def _commit_transaction(self, offsets: list[TopicPartition], consumer: Consumer) -> None:
        doing = "adding offsets to the transaction"
        try:
            if offsets:
                group = consumer.consumer_group_metadata()
                self._call(self._producer.send_offsets_to_transaction, doing, offsets, group)
            doing = "committing"
            self._call(self._producer.commit_transaction, doing)
        except KafkaException as failure:
            raise self._discard(failure.args[0], doing) from failure

    def _discard(self, error: KafkaError, doing: str) -> MillstreamError:
        """Abort the transaction that met this error, so that the next one can begin; return what to raise.

        A transaction that is older than its timeout was aborted by the broker, which fences its producer (KIP-98): that
        is this worker's own delay, as after a suspended process, and no other worker's takeover. A producer that cannot
        abort is replaced by a new one; it takes over the transactional id.
        """
        own_delay = time.monotonic() - self._begun_s >= self._timeout_s
        fenced = error.code() in FENCED and not own_delay
        aborted = self._exactly_once and not fenced and self._abort()
        found = error_for(error, doing)
        if fenced or error.code() in PERMANENT:
            return found
        if not aborted:
            logger.warning("%s: %s; replacing the producer", doing, error.str())
            if not self._exactly_once:
                # What is written again must not come once more, and out of order, from the old producer's queue.
                self._producer.purge()
                self._producer.poll(0)
            self._delivery_errors.clear()
            self._replace()
        return found if isinstance(found, Aborted) else Aborted(f"{doing}: {error.str()}")

    def _replace(self) -> None:
        """Replace the producer; where that fails, the next `send` tries again instead of using the failed one."""
        self._lost, self._hangs = True, False
        self._producer, self._lost = self._open(), False

    def _abort(self) -> bool:
        if self._hangs:
            return False
        try:
            self._producer.abort_transaction(_ABORT_S)
        except KafkaException as failure:
            # The broker aborts it after transaction.timeout.ms, or the next init_transactions does.
            logger.warning("aborting: %s", failure.args[0].str())
            return False
        return True

    def _acknowledged(self) -> None:
        left = self._producer.flush(_FLUSH_S)
        if left and not self._delivery_errors:
            self._delivery_errors.append(KafkaError(KafkaError._TIMED_OUT, f"{left} records unacknowledged"))
        if self._delivery_errors:
            raise self._discard(self._delivery_errors[0], "writing outputs; offsets were not committed")

    def _flush_then_commit(self, offsets: list[TopicPartition], consumer: Consumer) -> None:
        self._acknowledged()
        if offsets:
            try:
                consumer.commit(offsets=offsets, asynchronous=False)
            except KafkaException as failure:
                found = error_for(failure.args[0], "committing offsets")
                raise Aborted(str(found)) if isinstance(found, Retry) else found from failure

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._delivery_errors.append(error)

    def _produce(self, output: Output) -> None:
        produce, topic = self._producer.produce, named(self._kafka, output.topic)
        partition = -1 if output.partition is None else output.partition  # -1: by key
        delivered = None if self._exactly_once else self._delivered  # else the transaction says
        stamps = output.timestamps_ms or [0] * len(output.values)  # 0: now
        for key, value, stamp in zip(output.keys, output.values, stamps, strict=True):
            while True:
                try:
                    produce(topic, value, key, partition, None, delivered, stamp)  # names would cost as much again
                    break
                except BufferError:
                    self._producer.poll(0.05)
        self._producer.poll(0)
