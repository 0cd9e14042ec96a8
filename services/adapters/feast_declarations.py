"""Feast objects, one at a time, as the engine's own values; what the engine cannot compute is refused by name."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast, get_args

from services.adapters.on_demand_transform import Transform
from services.core.declaration import (
    Aggregate,
    BatchView,
    FeatureType,
    Function,
    KeyType,
    NullKey,
    OnDemandView,
    Service,
    View,
)
from services.errors import Misconfigured
from services.topology import EXAMPLES, LABEL_TIME

_TYPES: dict[str, FeatureType] = {
    "Int64": "int64",
    "Int32": "int32",
    "Float64": "float64",
    "Float32": "float32",
    "Bool": "bool",
    "String": "string",
    "UnixTimestamp": "unix_timestamp",
}
_KEYS: dict[str, KeyType] = {"INT64": "int64", "STRING": "string"}
_FUNCTIONS: tuple[str, ...] = get_args(Function)
_INTEGRAL = frozenset({"count", "count_distinct"})
_REAL = frozenset({"mean", "std", "var"})


def _dtype(owner: str, field: Any) -> FeatureType:
    kind = str(field.dtype)
    if kind not in _TYPES:
        raise Misconfigured(f"{owner}: feature {field.name!r} is {kind}; supported: {', '.join(_TYPES)}")
    return _TYPES[kind]


def _join_key(owner: str, name: str, entities: dict[str, Any]) -> tuple[str, KeyType]:
    entity = entities.get(name)
    if entity is None:
        raise Misconfigured(f"{owner}: entity {name!r} is not declared in the repo")
    kind = str(entity.value_type.name)
    if kind not in _KEYS:
        raise Misconfigured(f"entity {name!r} has value type {kind}; supported: {', '.join(_KEYS)}")
    return entity.join_key, _KEYS[kind]


def stream_view(view: Any, entities: dict[str, Any]) -> View:
    """Return a stream feature view with its aggregations; raises as `batch_view` does."""
    owner = f"stream feature view {view.name!r}"
    if len(view.entities) != 1:
        raise Misconfigured(f"{owner} must have exactly one entity; found: {', '.join(view.entities) or 'none'}")
    if getattr(view, "udf", None) is not None or getattr(view, "feature_transformation", None) is not None:
        raise Misconfigured(f"{owner} has a transformation; supported: aggregations, and on-demand views for the rest")
    source = view.stream_source
    if type(source).__name__ != "KafkaSource" or not source.kafka_options.topic:
        raise Misconfigured(f"{owner} must read a KafkaSource with a topic")
    join_key, key_type = _join_key(owner, view.entities[0], entities)
    fields = {field.name: field for field in view.features}
    if not view.aggregations:
        raise Misconfigured(f"{owner} has no aggregations; the engine computes those")
    aggregates = tuple(_aggregate(owner, aggregation, fields) for aggregation in view.aggregations)
    left = set(fields) - {aggregate.feature for aggregate in aggregates}
    if left:
        raise Misconfigured(f"{owner}: no aggregation gives the feature(s) {', '.join(sorted(left))}")
    topic, lateness = source.kafka_options.topic, source.kafka_options.watermark_delay_threshold
    of_labels = topic == EXAMPLES
    if of_labels and source.timestamp_field != LABEL_TIME:
        raise Misconfigured(
            f"{owner} takes its time from {source.timestamp_field!r}; labels count from when they became known, "
            f"so its source needs timestamp_field={LABEL_TIME!r}"
        )
    if of_labels and lateness:
        raise Misconfigured(
            f"{owner} has a watermark_delay_threshold; a label is never too late for its windows, so leave it out "
            "(MILLSTREAM_LABEL_HORIZON_DAYS says how long after its event a label counts)"
        )
    return View(
        view.name,
        view.entities[0],
        join_key,
        key_type,
        topic,
        source.timestamp_field,
        round(lateness.total_seconds() * 1000) if lateness is not None else 0,
        aggregates,
        of_labels,
        bool(view.online),
        _null_key(entities[view.entities[0]]),
    )


def _null_key(entity: Any) -> NullKey:
    """Return what becomes of events without an entity, by its tag ``null_key``."""
    found = (entity.tags or {}).get("null_key", "null_features")
    if found not in get_args(NullKey):
        raise Misconfigured(
            f"entity {entity.name!r} has the tag null_key={found!r}; supported: {', '.join(get_args(NullKey))}"
        )
    return cast("NullKey", found)


def _aggregate(owner: str, aggregation: Any, fields: dict[str, Any]) -> Aggregate:
    name = aggregation.resolved_name(aggregation.time_window)
    what = f"{owner}: aggregation {name!r}"
    if aggregation.function not in _FUNCTIONS:
        raise Misconfigured(f"{what} has function {aggregation.function!r}; supported: {', '.join(_FUNCTIONS)}")
    if aggregation.time_window is None or aggregation.time_window.total_seconds() <= 0:
        raise Misconfigured(f"{what} needs a time_window longer than nothing")
    if aggregation.slide_interval != aggregation.time_window:
        raise Misconfigured(f"{what} has a slide_interval; windows here slide with every event, so leave it out")
    if name not in fields:
        raise Misconfigured(f"{what} has no Field {name!r} in the view's schema; declare it, with its dtype")
    dtype = _dtype(owner, fields[name])
    whole, real = {"int64", "int32"}, {"float64", "float32"}
    supported = whole if aggregation.function in _INTEGRAL else real
    if aggregation.function not in _INTEGRAL | _REAL:
        supported = whole | real  # which of them depends on the column, see `services.adapters.column_types`
    if dtype not in supported:
        raise Misconfigured(
            f"{what} is declared {dtype}; supported for {aggregation.function}: {', '.join(sorted(supported))}"
        )
    window_ms = round(aggregation.time_window.total_seconds() * 1000)
    return Aggregate(name, dtype, aggregation.column, cast("Function", aggregation.function), window_ms)


def on_demand_view(view: Any) -> OnDemandView:
    """Return an on-demand view in python or pandas mode; raises as `batch_view` does."""
    owner = f"on-demand view {view.name!r}"
    if view.mode not in {"python", "pandas"} or view.singleton:
        raise Misconfigured(f"{owner} has mode {view.mode!r}; supported: python (over lists) and pandas")
    requested = tuple(
        (field.name, _dtype(owner, field)) for source in view.source_request_sources.values() for field in source.schema
    )
    features = [
        (f"{projection.name}__{field.name}", _dtype(owner, field))
        for projection in view.source_feature_view_projections.values()
        for field in projection.features
    ]
    inputs = [name for name, _ in requested] + [name for name, _ in features]
    outputs = tuple((field.name, _dtype(owner, field)) for field in view.features)
    shorts = Counter(name.rpartition("__")[2] for name in inputs)
    clear = {name.rpartition("__")[2]: name for name in inputs if shorts[name.rpartition("__")[2]] == 1}
    types = dict((*requested, *features))
    compute = Transform(view.name, view.feature_transformation.udf, view.mode == "pandas", clear, types)
    input_types = (*(None for _ in requested), *(dtype for _, dtype in features))
    return OnDemandView(view.name, tuple(inputs), outputs, compute, input_types, requested)


def batch_view(view: Any, entities: dict[str, Any]) -> BatchView:
    """Return a plain feature view, which somebody else materialises.

    Raises
    ------
    Misconfigured
        Naming the view and what it has that is not supported.
    """
    owner = f"feature view {view.name!r}"
    keys = tuple(_join_key(owner, name, entities) for name in view.entities)
    return BatchView(view.name, keys, tuple((field.name, _dtype(owner, field)) for field in view.features))


def feature_service(service: Any) -> Service:
    """Return a feature service with the rule in its tags; raises as `batch_view` does."""
    import polars as pl

    what = f"FeatureService {service.name!r}"
    features = tuple(
        (f"{projection.name_to_use()}__{field.name}", _dtype(what, field))
        for projection in service.feature_view_projections
        for field in projection.features
    )
    tags = dict(service.tags)
    baseline = tags.get("baseline")
    if not baseline:
        raise Misconfigured(
            f"{what} needs a tag 'baseline': an SQL expression over event fields and features that gives a score in "
            "[0, 1], the answer while no model can give one, e.g. CASE WHEN amount > 220 THEN 1.0 ELSE 0.0 END"
        )
    try:
        pl.sql_expr(baseline)
    except pl.exceptions.PolarsError as error:
        raise Misconfigured(f"{what}: the baseline is no SQL expression: {error}") from error
    try:
        threshold = float(tags.get("threshold", "0.5"))
    except ValueError as error:
        raise Misconfigured(f"{what}: threshold {tags['threshold']!r} is no number in [0, 1]") from error
    if not 0.0 <= threshold <= 1.0:
        raise Misconfigured(f"{what}: threshold {tags['threshold']!r} is not in [0, 1]")
    return Service(service.name, features, baseline, threshold, tags)
