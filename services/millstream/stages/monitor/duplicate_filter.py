"""Scored events and dead letters that were counted before, where topics are written at least once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from millstream.core.recent_keys import RecentKeys, first_times
from millstream.runtime.flow import Flow
from millstream.runtime.log.protocol import AssignedReader, read_back
from millstream.runtime.log.records import Records
from millstream.topology import DEAD_LETTERS

_REPEATS: Final = 50_000
"""Records of a partition after which one is not expected to come again."""


class DuplicateFilter:
    """Events by place in their source and dead letters by id, per partition; nothing is kept exactly once."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[RecentKeys[tuple[int, int], bool], RecentKeys[str, bool]]] = {}

    def __contains__(self, partition: int) -> bool:
        return partition in self._seen

    def open(
        self,
        log: AssignedReader,
        partition: int,
        offsets: Mapping[str, int],
        validate: Mapping[str, Callable[[Records], Flow]],
    ) -> None:
        """Read back what came before these offsets by topic."""
        if log.atomic:
            return
        self._seen[partition] = RecentKeys(_REPEATS), RecentKeys(_REPEATS)
        for topic, offset in offsets.items():
            for records in read_back(log, topic, partition, offset, _REPEATS):
                self.first_times(validate[topic](records))

    def drop(self, partition: int) -> None:
        """Forget a partition; it may not be here."""
        self._seen.pop(partition, None)

    def first_times(self, flow: Flow) -> Flow:
        """Return the events or dead letters that are no duplicates."""
        if not self._seen:
            return flow
        columns, letters = flow.batch.columns, flow.records.topic == DEAD_LETTERS
        keys = columns["id"] if letters else zip(columns["source_partition"], columns["source_offset"], strict=True)
        fresh = [
            first_times(self._seen[partition][letters], [key])[0]
            for partition, key in zip(flow.partitions.tolist(), keys, strict=True)
        ]
        return flow.keep(np.array(fresh, dtype=np.bool_))
