"""What the label loop left in its topics, read as any subscriber could."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from millstream.app.assembly import Assembly
from millstream.core.avro.decode import RecordReader
from millstream.core.batch import Batch
from millstream.core.partitioner import partition_of
from millstream.topology import EXAMPLES, QUALITY, SCORED
from quality_oracle import Figures, by_key
from running import committed
from statements import Said

_MOST_BYTES = 1 << 30


def scored(assembly: Assembly, kafka: Mapping[str, str]) -> Batch:
    """Return what was answered."""
    reader = RecordReader(assembly.topology.stages[-1].output_schema, assembly.resolver())
    return reader.decode([each.value() for each in committed(kafka, SCORED)], _MOST_BYTES).batch


def examples(assembly: Assembly, kafka: Mapping[str, str]) -> Batch:
    """Return every example, in the one order there is."""
    reader = RecordReader(assembly.examples_schema, assembly.resolver())
    return reader.decode([each.value() for each in committed(kafka, EXAMPLES)], _MOST_BYTES).batch


def labelled(assembly: Assembly, kafka: Mapping[str, str]) -> dict[int, tuple[float, int]]:
    """Return what the newest example of each event says, where it says anything."""
    batch = examples(assembly, kafka)
    newest: dict[int, tuple[int, bool, float, int]] = {}
    columns = (batch.columns[name].tolist() for name in ("event_id", "revision", "label", "label_known_at_ms"))
    for event, revision, label, at_ms, null in zip(*columns, batch.is_null("label").tolist(), strict=True):
        newest[int(event)] = max(newest.get(int(event), (-1, True, 0.0, 0)), (revision, null, label, at_ms))
    return {event: (label, at_ms) for event, (_, null, label, at_ms) in newest.items() if not null}


def as_of_ms(assembly: Assembly, kafka: Mapping[str, str], said: Sequence[Said]) -> int:
    """Return how far the slowest partition of labels has come, and no further than the examples."""
    partitions = partition_of([str(each[0]).encode() for each in said], 4)
    known_ms = np.array([each[2] for each in said])
    slowest_ms = min(int(known_ms[partitions == partition].max()) for partition in range(4))
    return min(slowest_ms, int(examples(assembly, kafka).columns["label_known_at_ms"].max()))


def figures(assembly: Assembly, kafka: Mapping[str, str]) -> Figures:
    """Return the newest figures of quality, by key."""
    newest = {each.key(): each.value() for each in committed(kafka, QUALITY)}
    reader = RecordReader(assembly.contracts[QUALITY].schema, assembly.resolver())
    return by_key(reader.decode(list(newest.values()), _MOST_BYTES).batch)


def check_chain(batch: Batch) -> None:
    """Fail unless each example is there once, and says that it replaces what the one before it said."""
    pairs = list(zip(batch.columns["event_id"], batch.columns["revision"].tolist(), strict=True))
    assert len(set(pairs)) == len(pairs), "no example is published twice"
    said: dict[str, float | None] = {}
    columns = zip(
        batch.columns["event_id"],
        batch.columns["label"].tolist(),
        batch.is_null("label").tolist(),
        batch.columns["previous_label"].tolist(),
        batch.is_null("previous_label").tolist(),
        strict=True,
    )
    for event, label, null, previous, no_previous in columns:
        assert said.get(event) == (None if no_previous else previous), event
        said[event] = None if null else label
