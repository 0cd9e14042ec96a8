"""Publish a file's rows to a topic: every row is acknowledged by Kafka, or is at fault and named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from millstream.adapters.embedded.endpoints import resolve
from millstream.adapters.feast.compiled_repo import compiled_repo
from millstream.adapters.files.contracts import load_contract
from millstream.adapters.files.ingest import BadRow, Progress, columns_for, ingest, resume_row
from millstream.adapters.files.tabular import Declared, TabularFile, open_table
from millstream.adapters.kafka.paced_publisher import PacedPublisher
from millstream.adapters.kafka.producer import drain, open_producer
from millstream.adapters.kafka.schema_registry import connect, registry_prefix
from millstream.adapters.kafka.topic_names import plain_name, topic_names
from millstream.adapters.kafka.topics import partition_counts
from millstream.app.publish_warnings import first_event_ms, late_warning, newest_event_ms, unit_warning
from millstream.core.avro.encode import RecordWriter
from millstream.core.contracts import Contract
from millstream.core.label_rows import LabelShape
from millstream.core.pacing import FLAT_OUT, Pace
from millstream.errors import MillstreamError, Misconfigured
from millstream.topology import LABELS

if TYPE_CHECKING:
    from millstream.settings import Settings


@dataclass(frozen=True, slots=True)
class Publication:
    """A file that fits its topic's contract, ready to be published.

    Parameters
    ----------
    topic : str
        The topic's plain name.
    kafka : mapping of str to str
        How to reach the cluster.
    warnings : tuple of str
        Sentences about the file's event times.
    """

    topic: str
    kafka: Mapping[str, str]
    warnings: tuple[str, ...]
    _table: TabularFile
    _columns: Mapping[str, str]
    _contract: Contract
    _writer: RecordWriter
    _shape: LabelShape | None

    def rows_at_most(self, first_row: int, limit: int | None) -> int:
        """Return how many rows there are to publish from ``first_row`` on."""
        left = self._table.rows_at_most - first_row
        return max(0, min(limit or left, left))

    def publish(
        self,
        publisher: PacedPublisher,
        progress: Progress,
        fault: Callable[[BadRow], None],
        *,
        limit: int | None = None,
        send_bad: bool = False,
    ) -> None:
        """Publish the rows from ``progress.next_row`` on; see `millstream.adapters.files.ingest.ingest`."""
        ingest(
            self._table,
            self._columns,
            self.topic,
            self._contract,
            self._writer,
            publisher,
            progress,
            fault,
            limit=limit,
            send_bad=send_bad,
            shape=self._shape,
        )


@dataclass(frozen=True, slots=True)
class Published:
    """What became of the rows that were to be published.

    Parameters
    ----------
    acked : int
        Rows that all in-sync replicas have.
    bad_rows : list of BadRow
        Faults of the rows that do not fit the contract and were not sent; ``row`` counts from 0. A row at fault in two
        fields is there twice.
    reasons : dict of str to int
        How many rows were not sent, by reason.
    """

    acked: int
    bad_rows: list[BadRow]
    reasons: dict[str, int]


def prepare(
    settings: Settings, topic: str, file: Path, declared: Declared, mapping: Mapping[str, str], first_row: int = 0
) -> Publication:
    """Read a file's head and compare its columns with the topic's contract; nothing is sent.

    Parameters
    ----------
    topic : str
        Plain name, or the one on the cluster.
    mapping : mapping of str to str
        From columns to fields of the contract, where names differ.
    first_row : int
        The first row to publish; rows count from 0.

    Raises
    ------
    Misconfigured
        There is no such file, topic or contract, or the columns do not fit.
    Retry
        Kafka cannot be reached.
    """
    topic = plain_name(settings, topic)
    contract = load_contract(settings, topic)
    table = open_table(file, declared)
    shape = label_shape(settings, contract) if topic == LABELS else None
    columns = columns_for(table, contract, mapping, shape)
    kafka = kafka_with(settings, [topic])
    writer = writer_for(settings, topic, contract)
    first_ms = first_event_ms(table, columns, contract, first_row)
    warnings = (
        unit_warning(columns[contract.event_time], first_ms),
        _late_warning(settings, kafka, topic, first_ms, contract),
    )
    return Publication(topic, kafka, tuple(filter(None, warnings)), table, columns, contract, writer, shape)


def publish_file(
    settings: Settings,
    topic: str,
    file: Path,
    declared: Declared,
    mapping: Mapping[str, str],
    warn: Callable[[str], None],
    *,
    first_row: int = 0,
) -> Published:
    """Publish a file's rows in order and wait until Kafka has acknowledged them.

    Parameters
    ----------
    warn : callable
        Takes sentences about the file's event times.

    Raises
    ------
    Misconfigured, Retry
        As `prepare`; nothing was sent.
    Retry, Stop
        Kafka did not take every row; says from which row on to publish again.
    """
    publication = prepare(settings, topic, file, declared, mapping, first_row)
    for sentence in publication.warnings:
        warn(sentence)
    progress, bad = Progress(first_row), list[BadRow]()
    try:
        with open_publisher(publication.kafka) as publisher:
            publication.publish(publisher, progress, bad.append)
    except MillstreamError as error:
        acked, resume = publisher.deliveries.acked, resume_row(publisher, progress)
        raise type(error)(f"{error}; {acked:,} rows are acknowledged, go on with first_row={resume}") from error
    return Published(publisher.deliveries.acked, bad, progress.reasons)


@contextmanager
def open_publisher(
    kafka: Mapping[str, str], pace: Pace = FLAT_OUT, show: Callable[[PacedPublisher], None] = lambda _: None
) -> Iterator[PacedPublisher]:
    """Give a publisher; on leaving, however, wait for what is under way.

    Parameters
    ----------
    show : callable
        Takes the publisher whenever its deliveries have changed, and at last.

    Raises
    ------
    Retry, Stop
        Records were not acknowledged.
    """
    client = open_producer(kafka, paced=pace.kind != "flat_out")
    publisher = PacedPublisher(client, pace, lambda: show(publisher), kafka=kafka)
    try:
        yield publisher
    finally:
        try:
            drain(client, publisher.deliveries)
        finally:
            show(publisher)
        client.close()  # would wait for ever if records were left


def kafka_with(settings: Settings, topics: list[str]) -> Mapping[str, str]:
    """Return how to reach Kafka, once these topics are known to be there.

    Raises
    ------
    Misconfigured
        There is no such topic, or no Kafka.
    """
    kafka = resolve(settings, redis=False).kafka
    there = partition_counts(kafka, topics)
    missing = [topic for topic in topics if topic not in there]
    if missing:
        raise Misconfigured(f"there is no topic {', '.join(missing)}; `millstream init` creates the feature repo's")
    return kafka


def writer_for(settings: Settings, topic: str, contract: Contract) -> RecordWriter:
    """Return what encodes a topic's records: framed for the schema registry where one is set, else single-object.

    Raises
    ------
    Retry, Misconfigured
        The registry is away or refuses the schema.
    """
    registry = connect(settings)
    if registry is None:
        return RecordWriter(contract.schema)
    name = topic_names(settings).names.get(topic, topic)
    return RecordWriter(contract.schema, registry_prefix(registry.register(name, contract.schema)))


def label_shape(settings: Settings, labels: Contract) -> LabelShape:
    """Return how labels are read: with ids as the events' contract has them, where a feature repo names that."""
    try:
        events = load_contract(settings, compiled_repo(settings).declaration.topic)
    except Misconfigured:
        return LabelShape.of(labels.schema.fields, None)
    return LabelShape.of(labels.schema.fields, events.schema[events.event_id] if events.event_id else None)


def _late_warning(
    settings: Settings, kafka: Mapping[str, str], topic: str, first_ms: int | None, contract: Contract
) -> str | None:
    """Return what to report of a file whose events are older than what the stages still take."""
    newest_ms = newest_event_ms(settings, kafka, topic, contract)
    if first_ms is None or newest_ms is None or first_ms >= newest_ms:
        return None
    try:
        declaration = compiled_repo(settings).declaration
    except Misconfigured:
        return None  # no stages run from here, so none turns anything away
    return late_warning(settings, topic, first_ms, newest_ms, declaration)
