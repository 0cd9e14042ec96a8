"""``millstream features log``: the served features as files, until stopped."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from millstream.adapters.embedded.endpoints import resolve
from millstream.adapters.feast.offline_log import OfflineLog
from millstream.adapters.feast.offline_writer import OfflineWriter
from millstream.adapters.kafka.schema_topic import schema_resolver
from millstream.adapters.kafka.topics import require_topics
from millstream.app.assembly import Assembly
from millstream.core.avro.decode import RecordReader


def group_of(project: str) -> str:
    """Return the consumer group whose committed offsets say how far the offline log goes."""
    return f"{project}.offline-log"


def keep(assembly: Assembly, until_end: bool, every_s: float, on_progress: Callable[[int], None]) -> int:
    """Append what was served to the offline log until SIGTERM, Ctrl-C or the topic's end; return how many events.

    Raises
    ------
    Misconfigured, Retry, Stop
        Saying what is missing, cannot be reached or went wrong; nothing is lost, the next run goes on from there.
    """
    kafka = resolve(assembly.settings, redis=False).kafka
    require_topics(kafka, assembly.topology.topics)
    resolver = schema_resolver(assembly.settings, kafka, assembly.schemas)
    writer = OfflineWriter(
        kafka,
        group_of(assembly.topology.project),
        RecordReader(assembly.topology.stages[-1].output_schema, resolver),
        assembly.declaration.views,
        OfflineLog(assembly.settings.state_dir),
        flush_interval_s=every_s,
    )
    with _stopping() as stopped:
        try:
            while not stopped() and not (until_end and writer.at_end):
                writer.poll(0.5)
                on_progress(writer.written + writer.held)
            writer.flush()
        finally:
            writer.close()
    return writer.written


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Take SIGTERM and SIGINT as a wish to end after what is in hand."""
    wishes: list[int] = []
    before = {
        number: signal.signal(number, lambda at, _: wishes.append(at)) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield lambda: bool(wishes)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
