"""What a feature repo declares, as plain values: the engine knows only these, never Feast.

`millstream.adapters.feast.repo` compiles Feast objects into a `Declaration`; `millstream.topology` derives stages.
Feature columns are named ``{view}__{feature}`` everywhere past this point (Feast's own full feature name).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Function = Literal["count", "sum", "mean", "min", "max", "std", "var", "first", "last", "count_distinct"]
KeyType = Literal["int64", "string"]
FeatureType = Literal["int64", "int32", "float64", "float32", "bool", "string", "unix_timestamp"]
NullKey = Literal["null_features", "dead_letter"]
ColumnType = Literal["real", "integer", "long", "text"]
"""What an aggregated column holds: floating point; Avro int or boolean; 64-bit integers; text, bytes or symbols."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One feature: ``function`` of ``column`` over (t - window_ms, t], event time, current event included.

    ``column_type`` follows from the contract of the view's topic.
    """

    feature: str
    dtype: FeatureType
    column: str
    function: Function
    window_ms: int
    column_type: ColumnType = field(default="real", compare=False)


@dataclass(frozen=True, slots=True)
class View:
    """A stream feature view: aggregates of one topic, per value of one entity.

    ``lateness_ms`` is the source's ``watermark_delay_threshold``: an event older than its key's newest by more than
    this is late. With ``of_labels`` the topic is that of examples: what became known of events, as of the time when it
    did; an event asks and is not counted. What is not ``online`` is computed and scored, and not kept for readers.
    ``null_key`` is what becomes of an event without this entity: its features are null, or it is a dead letter.
    """

    name: str
    entity: str
    join_key: str
    key_type: KeyType
    topic: str
    timestamp_column: str
    lateness_ms: int
    aggregates: tuple[Aggregate, ...]
    of_labels: bool = False
    online: bool = True
    null_key: NullKey = "null_features"

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of this view's features in the flow, in declared order."""
        return tuple(f"{self.name}__{aggregate.feature}" for aggregate in self.aggregates)


@dataclass(frozen=True, slots=True)
class OnDemandView:
    """A row-level transform.

    ``compute`` takes a dict of equally long lists (``inputs``) and returns a dict of equally long lists
    (names of ``outputs``), as Feast's ``mode="python"`` does. ``input_types`` has, for each input, its type if it is a
    feature, None if it is a field of the event, and ``requested`` the declared types of the latter by name.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[tuple[str, FeatureType], ...]
    compute: Callable[[dict[str, list[Any]]], dict[str, Any]]
    input_types: tuple[FeatureType | None, ...] = ()
    requested: tuple[tuple[str, FeatureType], ...] = ()


@dataclass(frozen=True, slots=True)
class BatchView:
    """A view materialised into the online store by another job; read per micro-batch and carried along."""

    name: str
    join_keys: tuple[tuple[str, KeyType], ...]
    features: tuple[tuple[str, FeatureType], ...]


@dataclass(frozen=True, slots=True)
class Service:
    """What one model reads.

    Parameters
    ----------
    name : str
        Feast ``FeatureService`` name.
    features : tuple of (column, dtype)
        In declared order; ``column`` is ``{view}__{feature}``.
    baseline : str
        SQL expression over event fields and features giving a score in [0, 1], used while no model can answer.
    threshold : float
        Decision threshold on the score, in [0, 1].
    tags : mapping
        The service's Feast tags.
    """

    name: str
    features: tuple[tuple[str, FeatureType], ...]
    baseline: str
    threshold: float
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Declaration:
    """Everything the engine needs from a feature repo.

    ``topic`` is the one event topic that all stream views but those of labels read; its contract is
    ``schemas/{topic}.avsc``.
    """

    project: str
    topic: str
    views: tuple[View, ...]
    on_demand: tuple[OnDemandView, ...]
    batch: tuple[BatchView, ...]
    service: Service

    @property
    def needs_online_store(self) -> bool:
        """Whether a view is kept in the online store, or read from there."""
        return bool(self.batch) or any(view.online for view in self.views)
