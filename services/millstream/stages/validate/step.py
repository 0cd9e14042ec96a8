"""Decode a micro-batch and validate it against its contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from millstream.core.avro.decode import RecordReader
from millstream.core.batch import Rejection
from millstream.core.constraint import Constraint, shown
from millstream.core.contracts import Contract
from millstream.core.partitioner import partition_of
from millstream.core.requirements import refuse
from millstream.runtime.flow import Flow
from millstream.runtime.log.records import Records


class Validate:
    """Bytes to columns; every record that does not fit becomes a rejection, and none stops the others.

    Parameters
    ----------
    reader : RecordReader
        Resolves writers' schemas to the one this stage reads.
    max_bytes : int
        Larger records are rejected unread.
    contract : Contract or None
        Constraints to hold; None on a topic Millstream wrote itself, whose events were validated one hop before.
    required : sequence of Constraint
        What the stage needs of records of such a topic; see `millstream.core.requirements`.
    partitions : int
        Of the topic: a record that does not lie in its key's is rejected. 0 where it is not known.
    """

    def __init__(
        self,
        reader: RecordReader,
        max_bytes: int,
        contract: Contract | None = None,
        required: Sequence[Constraint] = (),
        partitions: int = 0,
    ) -> None:
        self._reader = reader
        self._max_bytes = max_bytes
        self._contract = contract
        self._required = tuple(required)
        self._partitions = partitions

    def __call__(self, records: Records) -> Flow:
        """Return the rows that are sound, with where each came from."""
        decoded = self._reader.decode(records.values, self._max_bytes)
        flow = Flow(records, decoded.rows, decoded.batch, tuple(decoded.rejections))
        if self._contract is None:
            return flow.keep(*refuse(self._required, flow.batch)) if self._required else flow
        rows = flow.rows.tolist()
        received_ms = np.asarray(records.timestamps_ms[flow.rows], dtype=np.int64)
        sound, rejections = self._contract.validate(flow.batch, received_ms, [records.keys[row] for row in rows])
        flow = flow.keep(sound, rejections)
        if self._partitions and self._contract.key:
            flow = _in_place(flow, self._contract, self._partitions)
        provenance = {
            "received_at_ms": records.timestamps_ms[flow.rows],
            "source_partition": flow.partitions,
            "source_offset": records.offsets[flow.rows],
        }
        return replace(flow, batch=flow.batch.with_columns(provenance))


def _in_place(flow: Flow, contract: Contract, count: int) -> Flow:
    """Reject rows that lie in another partition than their key's: a key's windows would be divided among partitions."""
    keys = flow.records.keys
    if len(flow.rows) != len(keys):
        keys = [keys[row] for row in flow.rows.tolist()]
    texts = cast("Sequence[bytes]", keys)  # none is null: each was compared with its key field's text
    found, expected = flow.partitions, partition_of(texts, count)
    wrong = (expected != found) & (found >= 0)
    if not wrong.any():
        return flow
    private = any(each.private for each in contract.constraints if each.field == contract.key)
    rejections = [
        Rejection(
            row,
            "wrong-partition",
            contract.key,
            f"the record lies in partition {found[row]}, but {'its key' if private else f'key {shown(texts[row])}'} "
            f"belongs to partition {expected[row]} of {count} (murmur2, as the Java client); set the producer's "
            "partitioner=murmur2_random, then redrive",
        )
        for row in np.flatnonzero(wrong).tolist()
    ]
    return flow.keep(~wrong, rejections)
