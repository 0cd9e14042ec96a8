"""What the topics hold in the end, as columns: the only thing, with Redis, that the checker looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from millstream.app.assembly import Assembly, Resolve
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.schema import Schema
from millstream.core.batch import Batch
from millstream.runtime.log.protocol import LogReader
from millstream.runtime.log.records import Records, empty_records
from millstream.topology import DEAD_LETTERS, PREDICTIONS

Ids = NDArray[np.int64]
_LIMIT_BYTES = 1 << 40


@dataclass(frozen=True, slots=True)
class Table:
    """A topic's committed records, decoded; row i of ``batch`` is record i of ``records``."""

    records: Records
    batch: Batch


@dataclass(frozen=True)
class History:
    """Every topic that matters, as read_committed shows it.

    Parameters
    ----------
    inputs : dict of str to Records
        Each stage's input, by topic, partition by partition in offset order.
    outputs : dict of str to Table
        Each stage's output, by topic.
    predictions, dead_letters : Table
    unreadable : list of str
        Records of the engine that cannot be decoded; it is in no table.
    """

    inputs: dict[str, Records]
    outputs: dict[str, Table]
    predictions: Table
    dead_letters: Table
    unreadable: list[str] = field(default_factory=list)


def place_ids(partitions: NDArray[np.int64], offsets: NDArray[np.int64]) -> Ids:
    """Return one number per (partition, offset)."""
    return (partitions.astype(np.int64) << 44) | offsets.astype(np.int64)


def read_history(reader: LogReader, assembly: Assembly, resolve: Resolve, partitions: int) -> History:
    """Read everything.

    Raises
    ------
    Retry, Stop
        The log cannot be read.
    """
    unreadable: list[str] = []

    def table(topic: str, schema: Schema) -> Table:
        records = read_all(reader, topic, partitions)
        decoded = RecordReader(schema, resolve).decode(records.values, _LIMIT_BYTES)
        unreadable.extend(
            f"{topic}[{records.partitions[each.row]}]@{records.offsets[each.row]}: {each.detail}"
            for each in decoded.rejections
        )
        return Table(records.take(decoded.rows) if decoded.rejections else records, decoded.batch)

    stages = assembly.topology.stages
    outputs = {stage.output: table(stage.output, stage.output_schema) for stage in stages}
    inputs = {stages[0].input: read_all(reader, stages[0].input, partitions)}
    inputs |= {stage.input: outputs[stage.input].records for stage in stages[1:]}
    return History(
        inputs,
        outputs,
        table(PREDICTIONS, assembly.contracts[PREDICTIONS].schema),
        table(DEAD_LETTERS, assembly.contracts[DEAD_LETTERS].schema),
        unreadable,
    )


def read_all(reader: LogReader, topic: str, partitions: int) -> Records:
    """Return every committed record of a topic, partition by partition."""
    parts = [part for p in range(partitions) for part in reader.read(topic, p, 0, None)]
    return joined(topic, parts)


def joined(topic: str, parts: Sequence[Records]) -> Records:
    """Put pieces one after another."""
    if not parts:
        return empty_records(topic)
    return Records(
        topic,
        np.concatenate([part.partitions for part in parts]),
        np.concatenate([part.offsets for part in parts]),
        np.concatenate([part.timestamps_ms for part in parts]),
        [key for part in parts for key in part.keys],
        [value for part in parts for value in part.values],
    )
