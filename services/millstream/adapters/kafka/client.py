"""What every Kafka client here shares: errors sorted by what to do, and reading committed records outside a group."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any, NoReturn, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from millstream.adapters.kafka.cluster import named
from millstream.errors import Aborted, Fenced, MillstreamError, Misconfigured, Rebalanced, Retry, Stop

client_logger = logging.getLogger("librdkafka")
"""Where clients' own log lines go, instead of to standard error."""

_TIMEOUT_S = 30.0
_ANSWER_S = 5.0  # librdkafka's own timeout comes first, with a better message
T = TypeVar("T")

FENCED = {
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
}
# Every worker of a group meets these when another one comes or goes at the wrong moment (KIP-447).
_REBALANCED = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.UNKNOWN_MEMBER_ID,
}
# Aborting and writing again would meet these again.
PERMANENT = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.SECURITY_DISABLED,
    KafkaError.UNSUPPORTED_VERSION,
    KafkaError.INVALID_TRANSACTION_TIMEOUT,
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_MSG,
    KafkaError.POLICY_VIOLATION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}
PASSING = {
    KafkaError._PARTITION_EOF,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TRANSPORT,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
    KafkaError.CONCURRENT_TRANSACTIONS,
}


def raise_for(error: KafkaError, doing: str) -> NoReturn:
    """Raise what `error_for` returns.

    Raises
    ------
    Fenced, Rebalanced, Aborted, Retry, Stop
        Always one of them.
    """
    raise error_for(error, doing)


def error_for(error: KafkaError, doing: str) -> MillstreamError:
    """Return a librdkafka error as the error of the required action: Fenced, Rebalanced, Aborted, Retry or Stop."""
    if error.code() in FENCED:
        return Fenced(f"another worker owns this work now ({doing}: {error.str()})")
    if error.code() in _REBALANCED:
        return Rebalanced(f"{doing}: {error.str()}")
    if error.txn_requires_abort() and not error.fatal() and error.code() not in PERMANENT:
        return Aborted(f"{doing}: {error.str()}")
    if (error.retriable() or error.code() in PASSING) and not error.fatal():
        return Retry(f"{doing}: {error.str()}")
    return Stop(f"{doing}: {error.str()}")


def result_of(request: Future[T], timeout_s: float) -> T:
    """Return what an admin request came to; the broker has ``timeout_s`` to answer it.

    Raises
    ------
    KafkaException
        It failed. No answer in time is one as well, so that callers meet one kind of failure.
    """
    try:
        return request.result(timeout_s + _ANSWER_S)
    except TimeoutError:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None


def check_settings(kafka: Mapping[str, str], transaction_timeout_ms: int | None) -> None:
    """Refuse settings that no client can be made with, before one is made somewhere deep inside.

    Parameters
    ----------
    transaction_timeout_ms : int or None
        None where nothing is written in transactions.

    Raises
    ------
    Misconfigured
        Naming the setting.
    """
    reason = _refused(kafka, transaction_timeout_ms)
    if reason is not None:
        # One at a time, because librdkafka may call a setting by another of its names.
        names = [
            f"MILLSTREAM_KAFKA_{name.upper().replace('.', '_')}"
            for name, value in kafka.items()
            if _refused({name: value}, transaction_timeout_ms)
        ]
        raise Misconfigured(f"{', '.join(names) or 'MILLSTREAM_KAFKA_*'}: {reason}")


def _refused(kafka: Mapping[str, str], transaction_timeout_ms: int | None) -> str | None:
    """Return why librdkafka makes no producer or consumer with these settings; None if it does. Nothing is sent."""
    producer: dict[str, Any] = {"enable.idempotence": True, "acks": "all"}
    if transaction_timeout_ms is not None:
        producer |= {
            "transactional.id": "settings-check",
            "transaction.timeout.ms": transaction_timeout_ms,
            "delivery.timeout.ms": transaction_timeout_ms,
        }
    consumer = {"group.id": "settings-check", "session.timeout.ms": 6_000, "max.poll.interval.ms": 600_000}
    common: dict[str, Any] = {**kafka, "logger": client_logger}
    try:
        Producer({**producer, **common})
        Consumer({**consumer, **common}).close()
    except KafkaException as failure:
        return str(failure.args[0].str())
    return None


def extent(consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    """Return the first offset of a partition that is still retained, and the one that comes after its last.

    Raises
    ------
    Retry, Stop
        The broker does not say.
    """
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_TIMEOUT_S, cached=False)
    except KafkaException as failure:
        raise_for(failure.args[0], f"asking where {topic}[{partition}] begins")
    return int(low), int(high)


def read_committed(
    kafka: Mapping[str, str], topic: str, partition: int, start: int, end: int | None, batch_records: int = 10_000
) -> Iterator[list[Message]]:
    """Yield committed records of one partition with start <= offset < end, outside any group.

    Parameters
    ----------
    end : int or None
        Exclusive; None reads to the last stable offset as of the moment it is reached.

    Raises
    ------
    Retry, Stop
        The partition cannot be read.
    """
    stop = sys.maxsize if end is None else end
    if stop <= start:
        return
    consumer = Consumer(
        {
            "group.id": "millstream.reader",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            # The end is found by a fetch that returned nothing more, after this long.
            "fetch.wait.max.ms": 10,
            "fetch.message.max.bytes": 16_777_216,
            **{k: v for k, v in kafka.items() if not k.startswith("group.")},
            "logger": client_logger,
        }
    )
    try:
        consumer.assign([TopicPartition(named(kafka, topic), partition, start)])
        done = False
        while not done:
            good = []
            first = consumer.poll(0.2)
            # What else is here already; waiting for a full batch would wait out the timeout at each end.
            rest = consumer.consume(batch_records - 1, timeout=0) if first is not None else []
            for message in [first, *rest] if first is not None else []:
                error = message.error()
                if error is not None and error.code() == KafkaError._PARTITION_EOF:
                    done = True
                elif error is not None and error.code() not in PASSING:
                    raise_for(error, f"reading {topic}[{partition}]")
                elif error is None:
                    offset = message.offset() or 0
                    if offset < stop:
                        good.append(message)
                    done = done or offset >= stop - 1
            if good:
                yield good
    finally:
        consumer.close()
