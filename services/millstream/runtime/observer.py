"""Who is told what a stage loop did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from millstream.runtime.work import Processed, Recovered


class Observer(Protocol):
    """None of it may raise or wait."""

    def processed(self, stage: str, records: int, processed: Processed, seconds: Mapping[str, float]) -> None: ...

    def checkpointed(self, stage: str, rows: int, seconds: float) -> None: ...

    def recovered(self, stage: str, partition: int, recovered: Recovered, seconds: float) -> None: ...

    def revoked(self, stage: str, partitions: Sequence[int]) -> None: ...


class Unobserved:
    """An `Observer` that tells nobody."""

    def processed(self, stage: str, records: int, processed: Processed, seconds: Mapping[str, float]) -> None:
        """Ignore."""

    def checkpointed(self, stage: str, rows: int, seconds: float) -> None:
        """Ignore."""

    def recovered(self, stage: str, partition: int, recovered: Recovered, seconds: float) -> None:
        """Ignore."""

    def revoked(self, stage: str, partitions: Sequence[int]) -> None:
        """Ignore."""
