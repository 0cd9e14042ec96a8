"""The steps of a stage of the event path, as the stage sees them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from millstream.core.batch import Array, Rows
from millstream.core.windows.label_store import LabelStore
from millstream.core.windows.store import WindowStore
from millstream.ports import ViewRows
from millstream.runtime.flow import Flow
from millstream.runtime.log.records import Records


class ValidateStep(Protocol):
    """Bytes to sound rows."""

    def __call__(self, records: Records) -> Flow: ...


class LabelFeatures(Protocol):
    """Windows over labels; keeps one store per partition."""

    stores: dict[int, LabelStore]

    def new_store(self) -> LabelStore: ...

    def store(self, partition: int) -> LabelStore: ...

    def expire(self, partition: int, events: WindowStore) -> None: ...

    def online(self, partition: int, events: WindowStore, keys: Array) -> Iterable[ViewRows]: ...


class FeaturizeStep(Protocol):
    """Rows to rows with features; keeps one window store per partition."""

    stores: dict[int, WindowStore]

    @property
    def labels(self) -> LabelFeatures | None: ...

    def new_store(self) -> WindowStore: ...

    def drop(self, partition: int) -> None: ...

    def merge(self, flow: Flow, labels: Flow) -> tuple[Flow, Flow, list[ViewRows]]: ...

    def online(self, store: WindowStore, slots: Rows) -> Iterable[ViewRows]: ...

    def __call__(self, flow: Flow) -> tuple[Flow, list[ViewRows]]: ...


class ScoreStep(Protocol):
    """Rows with features to rows with scores."""

    def __call__(self, flow: Flow, now_ms: int) -> Flow: ...
