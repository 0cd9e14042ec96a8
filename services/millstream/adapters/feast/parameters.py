"""Every parameter of the Feast objects that a repo may declare, and what the engine makes of it.

``infra/docs/feast.md`` has this as a table. A parameter that a release of Feast adds has no entry here, and a test
compares both with Feast's signatures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from millstream.errors import Misconfigured

Effect = Literal["honoured", "refused", "no effect"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """What becomes of a parameter.

    Parameters
    ----------
    effect : {"honoured", "refused", "no effect"}
        A refused one may keep its default.
    note : str
        What it means here, or why it is refused and what to do.
    given : callable, optional
        For a refused one: whether the object has it set.
    refusal : str
        Text of the refusal; by default, the note.
    """

    effect: Effect
    note: str
    given: Callable[[Any], object] | None = None
    refusal: str = ""


def _honoured(note: str) -> Parameter:
    return Parameter("honoured", note)


def _unused(note: str = "kept in Feast's registry") -> Parameter:
    return Parameter("no effect", note)


def _refused(note: str, given: Callable[[Any], object]) -> Parameter:
    return Parameter("refused", note, given)


def _attribute(name: str) -> Callable[[Any], object]:
    return lambda thing: getattr(thing, name, None)


def _pinned(thing: Any) -> bool:
    return str(thing.version).lower() != "latest"


_WORDS = {"description": _unused(), "tags": _unused(), "owner": _unused()}
_VIEW = {**_WORDS, "org": _unused()}
_LATEST = _refused("the engine computes what the files declare now; leave it out", _pinned)
_ENABLED = _refused("Feast does not serve a view that is not enabled", lambda thing: not thing.enabled)
_BY_FEAST = "used by Feast's own materialisation only"
_TABLE_SOURCE = "used by Feast's point-in-time joins and materialisation, not by the stages"

_ON_DEMAND: Mapping[str, Parameter] = {
    **_VIEW,
    "name": _honoured("its outputs are columns {view}__{output}"),
    "entities": _refused(
        "an on-demand view is computed per row here; leave it out", lambda v: v.entities != ["__dummy"]
    ),
    "schema": _honoured("outputs and their types; values are cast as Feast casts them"),
    "sources": _honoured("request sources, and stream views or a selection of their features"),
    "input_schema": _honoured("as a RequestSource"),
    "mode": _honoured("python (over lists) and pandas; others are refused"),
    "udf": _honoured("the function"),
    "udf_string": _unused("kept in Feast's registry, which reads the function from it"),
    "feature_transformation": _honoured("a PythonTransformation or PandasTransformation of the view's mode"),
    "write_to_online_store": _refused(
        "it is computed for each event, not stored; leave it out", _attribute("write_to_online_store")
    ),
    "singleton": _refused(
        "Feast computes the first row of a request only; write the function over lists and leave it out",
        _attribute("singleton"),
    ),
    "track_metrics": _unused("Feast's feature server only"),
    "aggregations": _refused("aggregate in a StreamFeatureView and leave it out", _attribute("aggregations")),
    "version": _LATEST,
    "enabled": _ENABLED,
}
_DECORATED = {name: each for name, each in _ON_DEMAND.items() if name not in {"udf", "udf_string", "enabled"}}

PARAMETERS: Mapping[str, Mapping[str, Parameter]] = {
    "Entity": {
        **_WORDS,
        "name": _honoured("names the stage"),
        "tags": _honoured("null_key: what becomes of an event whose join key is null"),
        "join_keys": _honoured("one, the event's column; Feast refuses several"),
        "value_type": _honoured("INT64 for an int or long column, STRING for a string or enum; others are refused"),
    },
    "Field": {
        "name": _honoured("the column is {view}__{name}"),
        "dtype": _honoured("Int64, Int32, Float64, Float32, Bool, String, UnixTimestamp; others are refused"),
        "description": _unused(),
        "tags": _unused(),
        "vector_index": _refused(
            "features are numbers, flags, times and texts; leave it out", _attribute("vector_index")
        ),
        "vector_length": _unused("part of vector_index"),
        "vector_search_metric": _unused("part of vector_index"),
    },
    "StreamFeatureView": {
        **_VIEW,
        "name": _honoured("its features are columns {view}__{feature}"),
        "source": _honoured("a KafkaSource with a topic; others are refused"),
        "sink_source": _unused(_BY_FEAST),
        "entities": _honoured("exactly one"),
        "ttl": _honoured("no shorter than the longest window; 0 is unlimited"),
        "online": _honoured("False: computed and scored, not written to the online store"),
        "offline": _unused("`millstream features log` keeps every view"),
        "schema": _honoured("a field per aggregation, with its type"),
        "aggregations": _honoured("the features"),
        "mode": _unused("part of udf"),
        "timestamp_field": _honoured("the same as its source's"),
        "udf": _refused("supported: aggregations, and on-demand views for the rest", _attribute("udf")),
        "udf_string": _unused("part of udf"),
        "feature_transformation": _refused(
            "supported: aggregations, and on-demand views for the rest", _attribute("feature_transformation")
        ),
        "stream_engine": _refused("Millstream computes the stream; leave it out", _attribute("stream_engine")),
        "enable_tiling": _refused("windows here slide with every event; leave it out", _attribute("enable_tiling")),
        "tiling_hop_size": _refused("windows here slide with every event; leave it out", _attribute("tiling_hop_size")),
        "enable_validation": _unused("the contract of the topic validates every event"),
        "version": _LATEST,
    },
    "FeatureView": {
        **_VIEW,
        "name": _honoured("its features are columns {view}__{feature}"),
        "source": _unused("live: the online store is read; in a replay this is, point in time"),
        "sink_source": _unused(_BY_FEAST),
        "schema": _honoured("the features that are read, with their types; at least one"),
        "entities": _honoured("one or more; each join key is a column of the event"),
        "ttl": _unused("live, as in Feast's own online reads; a replay and Feast's point-in-time joins honour it"),
        "online": _refused(
            "a batch view is read from the online store, where a view with online=False is not; set online=True",
            lambda view: not view.online,
        ),
        "offline": _unused(_BY_FEAST),
        "mode": _unused(_BY_FEAST),
        "enable_validation": _unused(_BY_FEAST),
        "version": _LATEST,
        "enabled": _ENABLED,
    },
    "OnDemandFeatureView": _ON_DEMAND,
    "on_demand_feature_view": {
        **{name: each for name, each in _DECORATED.items() if name != "feature_transformation"},
        "explode": _unused("in Feast neither"),
    },
    "FeatureService": {
        "name": _honoured("the name of the model"),
        "features": _honoured(
            "views, selections (`view[[...]]`) and their names as text; `with_name`, `with_join_key_map` and versions "
            "are refused"
        ),
        "tags": _honoured("baseline, threshold, decision_above, decision_below, label"),
        "description": _unused(),
        "owner": _unused(),
        "logging_config": _unused("`millstream features log` keeps what was served"),
        "precompute_online": _refused(
            "Feast would read a vector of its own, which is not renewed with every event; leave it out",
            _attribute("precompute_online"),
        ),
    },
    "Aggregation": {
        "column": _honoured("of the event, or `label`"),
        "function": _honoured("count, sum, mean, min, max, std, var, first, last, count_distinct; others are refused"),
        "time_window": _honoured("(t - window, t], longer than nothing, whole milliseconds"),
        "slide_interval": _refused(
            "windows here slide with every event, so leave it out", lambda each: each.slide_interval != each.time_window
        ),
        "name": _honoured("of the feature; by default as Feast names it"),
    },
    "KafkaSource": {
        **_WORDS,
        "name": _unused(),
        "timestamp_field": _honoured("the contract's event time, or `label_known_at_ms` of labels"),
        "message_format": _refused(
            "records are Avro, and the contract of the topic is their schema; declare AvroFormat",
            lambda source: type(source.kafka_options.message_format).__name__ != "AvroFormat",
        ),
        "bootstrap_servers": _unused("MILLSTREAM_KAFKA_BOOTSTRAP_SERVERS decides"),
        "kafka_bootstrap_servers": _unused("MILLSTREAM_KAFKA_BOOTSTRAP_SERVERS decides"),
        "topic": _honoured("the event topic, or `examples` for labels; the same for all views of events"),
        "created_timestamp_column": _unused("duplicates are found by event id"),
        "field_mapping": _refused(
            "name the columns as the contract does and leave it out", _attribute("field_mapping")
        ),
        "batch_source": _unused(_TABLE_SOURCE),
        "watermark_delay_threshold": _honoured("how late an event may be, at least 0; not for labels"),
    },
    "PushSource": {
        **_WORDS,
        "name": _unused("as the source of a feature view; a stream feature view must read a KafkaSource"),
        "batch_source": _unused(_TABLE_SOURCE),
    },
    "RequestSource": {
        **_WORDS,
        "name": _unused(),
        "schema": _honoured("columns of the event, of the types in its contract"),
        "timestamp_field": _refused(
            "every field is a column of the event; leave it out", _attribute("timestamp_field")
        ),
    },
    "FileSource": {
        **{name: _unused(_TABLE_SOURCE) for name in ("path", "name", "event_timestamp_column", "timestamp_field")},
        **{name: _unused(_TABLE_SOURCE) for name in ("file_format", "created_timestamp_column", "field_mapping")},
        **{name: _unused(_TABLE_SOURCE) for name in ("s3_endpoint_override", "connection_ref")},
        **_WORDS,
    },
}


def refuse_unsupported(kind: str, owner: str, thing: Any) -> None:
    """Refuse an object that has a parameter set which the engine does not support.

    Raises
    ------
    Misconfigured
        Naming object, parameter and value.
    """
    for name, parameter in PARAMETERS[kind].items():
        if parameter.given is not None and parameter.given(thing):
            raise Misconfigured(f"{owner} has {name}{_shown(getattr(thing, name, None))}: {parameter.note}")


def _shown(value: object) -> str:
    return f"={value!r}" if isinstance(value, bool | int | str | timedelta | dict) and value != "" else ""
