"""What publishing warns of before it begins: events that are late, and times that seem to have another unit."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from millstream.adapters.kafka.schema_topic import schema_resolver
from millstream.app.newest import newest
from millstream.core.avro.convert import to_batch
from millstream.core.avro.decode import RecordReader

if TYPE_CHECKING:
    from millstream.adapters.files.tabular import TabularFile
    from millstream.core.contracts import Contract
    from millstream.core.declaration import Declaration
    from millstream.settings import Settings

_LOOKED_AT = 1000
_EARLY_MS = 10_000_000_000  # in April 1970: where seconds of our times come to when read as milliseconds
_MAX_RECORD_BYTES = 1 << 30


def newest_event_ms(settings: Settings, kafka: Mapping[str, str], topic: str, contract: Contract) -> int | None:
    """Return the largest event time among a topic's newest records, in any framing, None where none can be read."""
    resolver = schema_resolver(settings, kafka, [contract.schema])
    values = [record.value() for _, record in newest(kafka, topic, _LOOKED_AT)]
    batch = RecordReader(contract.schema, resolver).decode(values, _MAX_RECORD_BYTES).batch
    return int(batch.columns[contract.event_time].max()) if batch.length else None


def first_event_ms(table: TabularFile, columns: Mapping[str, str], contract: Contract, start: int) -> int | None:
    """Return the smallest event time among a file's first rows from ``start`` on, None where none can be read."""
    column = columns[contract.event_time]
    for chunk in table.chunks([column], start=start, limit=_LOOKED_AT):
        fields = [contract.schema[contract.event_time]]
        batch, rejections = to_batch(fields, columns, chunk.frame, table.reading)
        sound = np.ones(batch.length, dtype=np.bool_)
        sound[[each.row for each in (*chunk.rejections, *rejections)]] = False
        if sound.any():
            return int(batch.columns[contract.event_time][sound].min())
    return None


def unit_warning(column: str, first_ms: int | None) -> str | None:
    """Return what to report of a file whose events lie in the first months of 1970, None if they do not.

    The column's name declares its unit and is believed; seconds exported under such a name would show nowhere else.
    """
    if first_ms is None or not 0 < first_ms < _EARLY_MS:
        return None
    return (
        f"column {column!r} is read in the unit of its name, and the file's first events then lie at {_utc(first_ms)}; "
        f"if it is in another unit, declare it with --time-unit {column}=s"
    )


def late_warning(settings: Settings, topic: str, first_ms: int, newest_ms: int, declaration: Declaration) -> str | None:
    """Return what to say of a file that begins before the topic's newest event, None if nothing can be late."""
    views = [view for view in declaration.views if view.topic == topic]
    if not views:
        return None
    lateness_ms = max(view.lateness_ms for view in views)
    if newest_ms - first_ms <= lateness_ms:
        return None
    longest_ms = max(aggregate.window_ms for view in views for aggregate in view.aggregates)
    fate = "go to the dead letters" if settings.late_policy == "dead_letter" else "are counted and left out"
    return (
        f"the file begins at {_utc(first_ms)}, but {topic} has events up to {_utc(newest_ms)}: events that are behind "
        f"their key's newest by more than {_span(lateness_ms)}, or behind their partition's by more than "
        f"{_span(lateness_ms + longest_ms)}, are late and {fate}. Publish in the order of event time, or score history "
        "with `millstream replay`"
    )


def _utc(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _span(span_ms: int) -> str:
    return str(timedelta(milliseconds=span_ms)).removesuffix(", 0:00:00")
