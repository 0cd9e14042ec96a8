"""Feast objects converted to the engine's declarations; unsupported ones are refused by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, cast, get_args

from millstream.adapters.feast.on_demand_transform import Transform
from millstream.adapters.feast.parameters import refuse_unsupported
from millstream.adapters.feast.service import refuse_renamed
from millstream.adapters.feast.types import feature_type, join_key
from millstream.core.declaration import (
    Aggregate,
    BatchView,
    Function,
    NullKey,
    OnDemandView,
    View,
)
from millstream.errors import Misconfigured
from millstream.topology import EXAMPLES, LABEL_TIME

_FUNCTIONS: tuple[str, ...] = get_args(Function)
_MODES = {"python": "PythonTransformation", "pandas": "PandasTransformation"}
_INTEGRAL = frozenset({"count", "count_distinct"})
_REAL = frozenset({"mean", "std", "var"})


def stream_view(view: Any, entities: dict[str, Any]) -> View:
    """Return a stream feature view with its aggregations; raises as `batch_view` does."""
    owner = f"stream feature view {view.name!r}"
    if list(view.entities) == ["__dummy"] or len(view.entities) != 1:
        raise Misconfigured(
            f"{owner} must have exactly one entity; found: {', '.join(view.entities).replace('__dummy', 'none')}"
        )
    if getattr(view, "udf", None) is not None or getattr(view, "feature_transformation", None) is not None:
        raise Misconfigured(
            f"{owner} has a transformation (udf or feature_transformation); supported: aggregations, and on-demand "
            "views for the rest"
        )
    refuse_unsupported("StreamFeatureView", owner, view)
    source = view.stream_source
    if type(source).__name__ != "KafkaSource" or not source.kafka_options.topic:
        raise Misconfigured(f"{owner} must read a KafkaSource with a topic")
    refuse_unsupported("KafkaSource", f"{owner}: its KafkaSource {source.name!r}", source)
    if view.timestamp_field != source.timestamp_field:
        raise Misconfigured(
            f"{owner} has timestamp_field={view.timestamp_field!r} and its source {source.timestamp_field!r}; "
            "they must be the same"
        )
    key, key_type = join_key(owner, view.entities[0], entities)
    fields = {field.name: field for field in view.features}
    if not view.aggregations:
        raise Misconfigured(f"{owner} has no aggregations; the engine computes those")
    aggregates = tuple(_aggregate(owner, aggregation, fields) for aggregation in view.aggregations)
    twice = [name for name, count in Counter(each.feature for each in aggregates).items() if count > 1]
    if twice:
        raise Misconfigured(
            f"{owner} has several aggregations named {', '.join(map(repr, twice))}; name each by name=..."
        )
    longest = max(view.aggregations, key=lambda each: each.time_window)
    if view.ttl and view.ttl < longest.time_window:
        raise Misconfigured(
            f"{owner} has ttl={str(view.ttl)!r}, shorter than the window of {longest.time_window} of "
            f"{longest.resolved_name(longest.time_window)!r}: Feast would read a row as absent while its window holds "
            "events. Make it no shorter, or leave it out"
        )
    left = set(fields) - {aggregate.feature for aggregate in aggregates}
    if left:
        raise Misconfigured(f"{owner}: no aggregation gives the feature(s) {', '.join(sorted(left))}")
    topic, lateness = source.kafka_options.topic, source.kafka_options.watermark_delay_threshold
    if lateness is not None and lateness.total_seconds() < 0:
        raise Misconfigured(f"{owner} has watermark_delay_threshold={str(lateness)!r}; it must not be negative")
    of_labels = topic == EXAMPLES
    if of_labels and source.timestamp_field != LABEL_TIME:
        raise Misconfigured(
            f"{owner} takes its time from {source.timestamp_field!r}; labels count from when they became known, "
            f"so its source needs timestamp_field={LABEL_TIME!r}"
        )
    if of_labels and lateness:
        raise Misconfigured(
            f"{owner} has a watermark_delay_threshold; a label is never too late for its windows, so leave it out "
            "(MILLSTREAM_LABEL_HORIZON_DAYS is how long after its event a label counts)"
        )
    return View(
        view.name,
        view.entities[0],
        key,
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
    if not aggregation.column:
        raise Misconfigured(f"{what} has no column")
    if aggregation.function not in _FUNCTIONS:
        raise Misconfigured(f"{what} has function {aggregation.function!r}; supported: {', '.join(_FUNCTIONS)}")
    if aggregation.time_window is None or aggregation.time_window.total_seconds() <= 0:
        raise Misconfigured(f"{what} needs a time_window longer than nothing")
    if aggregation.time_window.microseconds % 1000:
        raise Misconfigured(f"{what} has time_window={str(aggregation.time_window)!r}; it must be whole milliseconds")
    refuse_unsupported("Aggregation", what, aggregation)
    if name not in fields:
        raise Misconfigured(f"{what} has no Field {name!r} in the view's schema; declare it, with its dtype")
    dtype = feature_type(owner, fields[name])
    whole, real = {"int64", "int32"}, {"float64", "float32"}
    supported = whole if aggregation.function in _INTEGRAL else real
    if aggregation.function not in _INTEGRAL | _REAL:
        supported = whole | real  # which of them depends on the column, see `millstream.adapters.feast.column_types`
    if dtype not in supported:
        raise Misconfigured(
            f"{what} is declared {dtype}; supported for {aggregation.function}: {', '.join(sorted(supported))}"
        )
    window_ms = round(aggregation.time_window.total_seconds() * 1000)
    return Aggregate(name, dtype, aggregation.column, cast("Function", aggregation.function), window_ms)


def on_demand_view(view: Any, views: Mapping[str, Any]) -> OnDemandView:
    """Return an on-demand view in python or pandas mode; raises as `batch_view` does.

    Parameters
    ----------
    views : mapping of str to Feast view
        Of the repo, by name.
    """
    owner = f"on-demand view {view.name!r}"
    refuse_unsupported("OnDemandFeatureView", owner, view)
    if view.mode not in _MODES:
        raise Misconfigured(f"{owner} has mode {view.mode!r}; supported: python (over lists) and pandas")
    function = view.feature_transformation
    if type(function).__name__ != _MODES[view.mode]:
        raise Misconfigured(f"{owner} has mode {view.mode!r} and a {type(function).__name__}; they must go together")
    for source in view.source_request_sources.values():
        refuse_unsupported("RequestSource", f"{owner}: its RequestSource {source.name!r}", source)
    for projection in view.source_feature_view_projections.values():
        refuse_renamed(owner, projection)
        if hasattr(views.get(projection.name), "source_request_sources"):
            raise Misconfigured(
                f"{owner} reads on-demand view {projection.name!r}, which Feast would look for in the online store; "
                "compute both in one view"
            )
    requested = {
        field.name: feature_type(owner, field)
        for source in view.source_request_sources.values()
        for field in source.schema
    }
    outputs = tuple((field.name, feature_type(owner, field)) for field in view.features)
    if not outputs:
        raise Misconfigured(f"{owner} declares no outputs; give it a schema")
    selected = [
        (projection.name, field)
        for projection in view.source_feature_view_projections.values()
        for field in projection.features
    ]
    features = {f"{name}__{field.name}": feature_type(owner, field) for name, field in selected}
    _refuse_ambiguous(owner, requested, [field.name for _, field in selected], [name for name, _ in outputs])
    shorts = Counter(field.name for _, field in selected)
    clear = {field.name: f"{name}__{field.name}" for name, field in selected if shorts[field.name] == 1}
    compute = Transform(view.name, function.udf, view.mode == "pandas", clear, {**requested, **features})
    types = (*(None for _ in requested), *features.values())
    return OnDemandView(view.name, (*requested, *features), outputs, compute, types, tuple(requested.items()))


def _refuse_ambiguous(owner: str, requested: Iterable[str], features: Iterable[str], outputs: Iterable[str]) -> None:
    """Refuse names of which Feast would take one for the other: it hands features over by their short names too."""
    for name in features:
        if name in requested:
            raise Misconfigured(
                f"{owner} reads a request field and a feature called {name!r}, and Feast would give its function the "
                "feature for both; rename one"
            )
        if name in outputs:
            raise Misconfigured(
                f"{owner} has an output called {name!r} as a feature that it reads, and Feast would leave it out; "
                "rename it"
            )


def batch_view(view: Any, entities: dict[str, Any]) -> BatchView:
    """Return a plain feature view, which another job materialises.

    Raises
    ------
    Misconfigured
        Naming the view and what it has that is not supported.
    """
    owner = f"feature view {view.name!r}"
    refuse_unsupported("FeatureView", owner, view)
    keys = tuple(join_key(owner, name, entities) for name in view.entities)
    if not view.features:
        raise Misconfigured(f"{owner} declares no features; give it a schema")
    return BatchView(view.name, keys, tuple((field.name, feature_type(owner, field)) for field in view.features))
