"""What travels from step to step inside one micro-batch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from millstream.core.batch import Batch, Mask, Rejection, Rows
from millstream.runtime.log.records import Records

logger = logging.getLogger(__name__)

BEYOND = "beyond:"
"""Begins the name of a count of values that a feature's declared type cannot hold; the feature's name follows."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A micro-batch on its way through the steps of a stage.

    Parameters
    ----------
    records : Records
        As consumed; never shortened, so that a rejection can always point at the original bytes.
    rows : int64 ndarray of shape (m,)
        For each row of ``batch``, the position of its record in ``records``; ascending.
    batch : Batch
        The rows that are still going on.
    rejections : tuple of Rejection
        Records turned away so far; ``row`` is a position in ``records``.
    counts : mapping of str to int
        What was met on the way, e.g. ``duplicates``, ``late``.
    """

    records: Records
    rows: Rows
    batch: Batch
    rejections: tuple[Rejection, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    def keep(self, mask: Mask, rejections: Sequence[Rejection] = (), **counts: int) -> Flow:
        """Return the flow with only the rows under ``mask``.

        ``rejections`` refer to rows of the present batch and are translated to positions in ``records``.
        """
        turned_away = tuple(replace(each, row=int(self.rows[each.row])) for each in rejections)
        merged = dict(self.counts)
        for name, count in counts.items():
            merged[name] = merged.get(name, 0) + count
        if mask.all():
            return replace(self, rejections=self.rejections + turned_away, counts=merged)
        return Flow(self.records, self.rows[mask], self.batch.take(mask), self.rejections + turned_away, merged)

    @property
    def partitions(self) -> Rows:
        """Partition of each row of ``batch``, int64 of shape (m,)."""
        return np.asarray(self.records.partitions[self.rows], dtype=np.int64)


def report_unreadable(stage: str, flow: Flow) -> None:
    """Log an error about records of a topic of Millstream's own that a stage passes over, and where the first is."""
    if not flow.rejections:
        return
    first, records = flow.rejections[0], flow.records
    logger.error(
        "%s: %s of %s records of %s cannot be used and are passed over, the first is %s[%s]@%s: %s",
        stage,
        len(flow.rejections),
        len(records),
        records.topic,
        records.topic,
        int(records.partitions[first.row]),
        int(records.offsets[first.row]),
        first.detail,
    )
