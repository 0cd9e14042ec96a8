"""What commands that publish share: Kafka, a progress bar, and the last word on what was delivered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

from millstream.adapters.kafka.paced_publisher import PacedPublisher
from millstream.adapters.kafka.producer import drain, open_producer
from millstream.adapters.kafka.schema_registry import connect, registry_prefix
from millstream.adapters.kafka.topic_names import topic_names
from millstream.adapters.kafka.topics import partition_counts
from millstream.cli.screen import progress
from millstream.core.avro.encode import RecordWriter
from millstream.core.contracts import Contract
from millstream.core.pacing import Pace
from millstream.errors import Misconfigured
from millstream.settings import Settings


def kafka_with(settings: Settings, topics: list[str]) -> dict[str, str]:
    """Return how to reach Kafka, once these topics are known to be there.

    Raises
    ------
    Misconfigured
        There is no such topic, or no Kafka.
    """
    from millstream.adapters.embedded.endpoints import resolve

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


@contextmanager
def publisher_with_bar(
    console: Console,
    kafka: dict[str, str],
    pace: Pace,
    total: int,
    doing: str,
    skipped: Callable[[], int] = lambda: 0,
) -> Iterator[PacedPublisher]:
    """Give a publisher whose deliveries a progress bar shows; on leaving, however, wait for what is under way.

    ``skipped`` says how many of ``total`` were done without being sent.

    Raises
    ------
    Retry, Stop
        Records were not acknowledged.
    """
    client = open_producer(kafka, paced=pace.kind != "flat_out")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]} events/s, {task.fields[acked]:,} acked, eta"),
        TimeRemainingColumn(compact=True),
    )
    with progress(console, *columns, transient=False) as bars:
        bar = bars.add_task(doing, total=total, rate="-", acked=0)

        def show() -> None:
            done = publisher.deliveries
            speed = bars.tasks[0].speed
            bars.update(
                bar, completed=done.sent + skipped(), acked=done.acked, rate="-" if speed is None else f"{speed:,.0f}"
            )

        publisher = PacedPublisher(client, pace, show, kafka=kafka)
        try:
            yield publisher
        finally:
            try:
                drain(client, publisher.deliveries)
            finally:
                show()
            client.close()  # would wait for ever if records were left
