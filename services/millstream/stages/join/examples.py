"""Examples: the served features and scores of an event with its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Array, Batch
from millstream.core.ledger.fold import LedgerUpdate
from millstream.core.ledger.label_history import History, encode_history
from millstream.core.text import as_text
from millstream.errors import Stop
from millstream.runtime.log.records import Output


@dataclass(frozen=True, slots=True)
class RekeyedTopic:
    """Where examples go once more, by the key of an entity that has label-derived features."""

    topic: str
    key_column: str
    writer: RecordWriter


def made_of(
    reader: RecordReader,
    records: list[bytes],
    event_ids: list[bytes],
    folded: LedgerUpdate,
    names: Mapping[int, str],
    now_ms: int,
) -> Batch:
    """Return the examples to publish: scored records and what became known.

    Parameters
    ----------
    reader : RecordReader
        Of the scored topic.
    records : list of bytes
        The scored record of each event of ``folded.publish``.
    event_ids : list of bytes
        Of all events of the micro-batch.
    names : mapping of int to str
        Sources by hash.
    now_ms : int
        Only stamps.

    Raises
    ------
    Stop
        A prediction in the ledger can no longer be decoded.
    """
    decoded = reader.decode(records, max(map(len, records)))
    if decoded.rejections:
        problem = decoded.rejections[0]
        event_id = event_ids[folded.publish[problem.row]].decode()
        raise Stop(
            f"the prediction of event {event_id!r} in the ledger cannot be read: {problem.detail}. Bring back the "
            f"schema it was written with, or delete the ledger's directory"
        )
    at = folded.publish
    before, after = folded.before, folded.after
    known_at_ms = after.known_at_ms[at]
    columns: dict[str, Array] = {
        "event_id": _objects([event_ids[event].decode() for event in at.tolist()]),
        "label": after.labels[at].astype(np.float64),
        "label_known_at_ms": known_at_ms,
        "label_source": _objects([names[source] for source in after.sources[at].tolist()]),
        "label_delay_s": (known_at_ms - folded.entries.event_time_ms[at]) // 1000,
        "revision": folded.versions[at],
        "previous_label": before.labels[at].astype(np.float64),
        "previous_known_at_ms": before.known_at_ms[at],
        "joined_at_ms": np.full(len(at), now_ms, dtype=np.int64),
        "belief_history": _objects([encode_history(_history(folded, event)) for event in at.tolist()]),
    }
    none_before = before.labels[at] < 0
    nulls = {
        "label": after.labels[at] < 0,
        "previous_label": none_before,
        "previous_known_at_ms": none_before,
    }
    return decoded.batch.with_columns(columns, nulls)


def _history(folded: LedgerUpdate, event: int) -> History:
    known = folded.histories.get(event)
    if known is not None:
        return known
    label = int(folded.after.labels[event])
    return () if label < 0 else ((int(folded.after.known_at_ms[event]), label),)


def rekeyed_output(where: RekeyedTopic, made: Batch) -> Output:
    """Return examples keyed by an entity; one without that entity is left out."""
    missing = made.nulls.get(where.key_column)
    concerned = made if missing is None else made.take(~missing)
    return Output(where.topic, as_text(concerned.columns[where.key_column]), where.writer.encode(concerned))


def _objects(values: Sequence[str]) -> Array:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
