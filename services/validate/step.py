"""Decode a micro-batch and hold it against its contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from services.core.avro.decode import RecordReader
from services.core.constraint import Constraint
from services.core.contracts import Contract
from services.core.requirements import refuse
from services.transport.flow import Flow
from services.transport.records import Records


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
        What the stage needs of records of such a topic; see `services.core.requirements`.
    """

    def __init__(
        self,
        reader: RecordReader,
        max_bytes: int,
        contract: Contract | None = None,
        required: Sequence[Constraint] = (),
    ) -> None:
        self._reader = reader
        self._max_bytes = max_bytes
        self._contract = contract
        self._required = tuple(required)

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
        provenance = {
            "received_at_ms": records.timestamps_ms[flow.rows],
            "source_partition": flow.partitions,
            "source_offset": records.offsets[flow.rows],
        }
        return replace(flow, batch=flow.batch.with_columns(provenance))
