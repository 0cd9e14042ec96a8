"""Every parameter of Feast's objects is honoured, refused by name or without effect, as the guide's table says."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from millstream.adapters.feast.config import KEYS, ONLINE_STORE_KEYS, load_config
from millstream.adapters.feast.declarations import batch_view, on_demand_view, stream_view
from millstream.adapters.feast.parameters import PARAMETERS, Parameter
from millstream.adapters.feast.repo import quiet_feast
from millstream.adapters.feast.service import feature_service
from millstream.errors import Misconfigured
from repos import repo

with quiet_feast():
    import feast
    from feast import types
    from feast.aggregation import Aggregation
    from feast.credentials import ConnectionRef
    from feast.data_format import AvroFormat, JsonFormat, ParquetFormat
    from feast.data_source import KafkaSource, PushSource, RequestSource
    from feast.on_demand_feature_view import OnDemandFeatureView, on_demand_feature_view
    from feast.repo_config import RepoConfig
    from feast.stream_feature_view import StreamFeatureView
    from feast.transformation.pandas_transformation import PandasTransformation
    from feast.transformation.python_transformation import PythonTransformation

    from millstream.adapters.feast.online_store import MillstreamRedisOnlineStoreConfig

GUIDE = Path(__file__).parents[2] / "infra" / "docs" / "feast.md"
CLASSES: dict[str, Any] = {
    "Entity": feast.Entity,
    "Field": feast.Field,
    "StreamFeatureView": StreamFeatureView,
    "FeatureView": feast.FeatureView,
    "OnDemandFeatureView": OnDemandFeatureView,
    "on_demand_feature_view": on_demand_feature_view,
    "FeatureService": feast.FeatureService,
    "Aggregation": Aggregation,
    "KafkaSource": KafkaSource,
    "PushSource": PushSource,
    "RequestSource": RequestSource,
    "FileSource": feast.FileSource,
}
TABLES: dict[str, Any] = {**PARAMETERS, "feature_store.yaml": KEYS, "online_store": ONLINE_STORE_KEYS}


@pytest.mark.parametrize("kind", CLASSES)
def test_the_table_has_the_parameters_of_the_installed_feast(kind: str) -> None:
    assert set(PARAMETERS[kind]) == set(inspect.signature(CLASSES[kind]).parameters)


def test_the_table_has_the_keys_of_the_installed_feast() -> None:
    assert set(KEYS) == set(RepoConfig.model_fields)
    assert set(ONLINE_STORE_KEYS) == set(MillstreamRedisOnlineStoreConfig.model_fields)


def test_the_guide_shows_the_table() -> None:
    shown: dict[str, dict[str, tuple[str, str]]] = {}
    for line in GUIDE.read_text().splitlines():
        if heading := re.fullmatch(r"### `([\w.]+)`", line):
            rows = shown.setdefault(heading[1], {})
        elif row := re.fullmatch(r"\| `(\w+)` \| (honoured|refused|no effect) \| (.*) \|", line):
            rows[row[1]] = (row[2], row[3])
    assert shown == {
        kind: {name: (each.effect, each.note) for name, each in table.items()} for kind, table in TABLES.items()
    }


# ---- a test per row: what is compiled with the parameter set, and without


def entity(**given: Any) -> Any:
    return feast.Entity(
        **{"name": "machine", "join_keys": ["machine_id"], "value_type": feast.ValueType.STRING, **given}
    )


def field(**given: Any) -> Any:
    return feast.Field(**{"name": "hottest", "dtype": types.Float64, **given})


def table(**given: Any) -> Any:
    return feast.FileSource(
        **{"name": "log", "path": "log.parquet", "file_format": ParquetFormat(), "timestamp_field": "at", **given}
    )


def stream(**given: Any) -> Any:
    base = {"name": "readings", "topic": "readings", "timestamp_field": "read_at_ms", "message_format": AvroFormat("")}
    return KafkaSource(**{**base, "batch_source": table(), **given})


def aggregation(**given: Any) -> Any:
    return Aggregation(
        **{"column": "celsius", "function": "max", "time_window": timedelta(hours=1), "name": "hottest", **given}
    )


def compiled_stream(of: Any = None, by: Any = None, **given: Any) -> Any:
    by = by or entity()
    base = {"name": "heat", "entities": [by], "source": of or stream(), "timestamp_field": "read_at_ms"}
    made = StreamFeatureView(**{**base, "aggregations": [aggregation()], "schema": [field()], **given})
    return stream_view(made, {by.name: by, "other": entity(name="other", join_keys=["other_id"])})


def compiled_batch(**given: Any) -> Any:
    made = feast.FeatureView(
        **{"name": "upkeep", "entities": [entity()], "source": table(), "schema": [field()], **given}
    )
    return batch_view(made, {"machine": entity(), "other": entity(name="other", join_keys=["other_id"])})


def doubled(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"hottest": [2 * each for each in inputs["celsius"]]}


def tripled(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"hottest": [3 * each for each in inputs["celsius"]]}


def framed(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"hottest": 4 * inputs["celsius"]})


def asked(**given: Any) -> Any:
    return RequestSource(**{"name": "asked", "schema": [field(name="celsius")], **given})


def _of_on_demand(made: Any) -> Any:
    found = on_demand_view(made, {})
    answer = found.compute({name: [1.0] for name in found.inputs})
    return found.name, found.inputs, found.outputs, found.input_types, found.requested, answer


def compiled_on_demand(**given: Any) -> Any:
    base = {"name": "extra", "sources": [asked()], "schema": [field()], "mode": "python", "udf": doubled}
    return _of_on_demand(OnDemandFeatureView(**{**base, "udf_string": "doubled", **given}))


def compiled_decorated(**given: Any) -> Any:
    doubled.__module__ = __name__  # the decorator says it is of __main__, where its source is not found again
    return _of_on_demand(
        on_demand_feature_view(**{"sources": [asked()], "schema": [field()], "mode": "python", **given})(doubled)
    )


def compiled_service(**given: Any) -> Any:
    made = feast.FeatureView(name="upkeep", entities=[entity()], source=table(), schema=[field(), field(name="more")])
    given = {name: value(made) if callable(value) else value for name, value in given.items()}
    base = {"name": "failure", "features": [made], "tags": {"baseline": "0.5"}}
    return feature_service(feast.FeatureService(**{**base, **given}), {"upkeep": made})


BY_CLASS: dict[str, Callable[..., Any]] = {
    "Entity": lambda **given: compiled_stream(by=entity(**given)),
    "Field": lambda **given: compiled_batch(schema=[field(**given)]),
    "StreamFeatureView": compiled_stream,
    "FeatureView": compiled_batch,
    "OnDemandFeatureView": compiled_on_demand,
    "on_demand_feature_view": compiled_decorated,
    "FeatureService": compiled_service,
    "Aggregation": lambda **given: compiled_stream(aggregations=[aggregation(**given)]),
    "KafkaSource": lambda **given: compiled_stream(of=stream(**given)),
    "PushSource": lambda **given: compiled_batch(
        source=PushSource(**{"name": "push", "batch_source": table(), **given})
    ),
    "RequestSource": lambda **given: compiled_on_demand(sources=[asked(**given)]),
    "FileSource": lambda **given: compiled_batch(source=table(**given)),
}
WORDS = {"description": "words", "tags": {"team": "a"}, "owner": "a@example.org", "org": "a"}
SAME = {**WORDS, "name": "other", "version": "v2", "enabled": False, "enable_validation": True, "offline": True}
SHORTER = timedelta(minutes=30)
ON_DEMAND = {
    "entities": lambda: [entity()],
    "schema": lambda: [field(dtype=types.String)],
    "sources": lambda: [asked(schema=[field(name="celsius", dtype=types.Int64)])],
    "input_schema": lambda: [field(name="kelvin")],
    "write_to_online_store": True,
    "singleton": True,
    "track_metrics": True,
    "explode": True,
    "aggregations": lambda: [Aggregation(column="celsius", function="sum")],
    "udf": lambda: tripled,
    "udf_string": "other",
    "mode": "substrait",
    "feature_transformation": lambda: PythonTransformation(udf=tripled, udf_string="tripled"),
}
GIVEN: dict[str, dict[str, Any]] = {
    "Entity": {"join_keys": ["robot_id"], "value_type": feast.ValueType.INT64, "tags": {"null_key": "dead_letter"}},
    "Field": {"dtype": types.Int64, "vector_index": True, "vector_length": 3, "vector_search_metric": "L2"},
    "StreamFeatureView": {
        "source": lambda: stream(topic="other"),
        "sink_source": lambda: table(name="sink"),
        "entities": lambda: [entity(name="other", join_keys=["other_id"])],
        "ttl": SHORTER,
        "online": False,
        "schema": lambda: [field(dtype=types.Float32)],
        "aggregations": lambda: [aggregation(function="min")],
        "mode": "pandas",
        "timestamp_field": "other_ms",
        "udf": lambda: doubled,
        "udf_string": "doubled",
        "feature_transformation": lambda: PythonTransformation(udf=doubled, udf_string="doubled"),
        "stream_engine": {"type": "spark"},
        "enable_tiling": True,
        "tiling_hop_size": timedelta(minutes=1),
    },
    "FeatureView": {
        "source": lambda: table(name="other"),
        "sink_source": lambda: table(name="sink"),
        "schema": lambda: [field(dtype=types.Float32)],
        "entities": lambda: [entity(name="other", join_keys=["other_id"])],
        "ttl": SHORTER,
        "online": False,
        "mode": "python",
    },
    "OnDemandFeatureView": ON_DEMAND,
    "on_demand_feature_view": ON_DEMAND,
    "FeatureService": {
        "features": lambda view: [view[["more"]]],
        "tags": {"baseline": "0.25"},
        "logging_config": lambda view: feast.feature_logging.LoggingConfig(
            destination=feast.infra.offline_stores.file_source.FileLoggingDestination(path="log")
        ),
        "precompute_online": True,
    },
    "Aggregation": {
        "column": "state",
        "function": "min",
        "time_window": timedelta(hours=2),
        "slide_interval": timedelta(minutes=1),
        "name": "other",
    },
    "KafkaSource": {
        "timestamp_field": "other_ms",
        "message_format": lambda: JsonFormat("a int"),
        "bootstrap_servers": "elsewhere:9092",
        "kafka_bootstrap_servers": "elsewhere:9092",
        "topic": "other",
        "created_timestamp_column": "made",
        "field_mapping": {"a": "b"},
        "batch_source": lambda: table(name="other"),
        "watermark_delay_threshold": timedelta(hours=1),
    },
    "PushSource": {"batch_source": lambda: table(name="other")},
    "RequestSource": {"schema": lambda: [field(name="celsius", dtype=types.Int64)], "timestamp_field": "at"},
    "FileSource": {
        "path": "other.parquet",
        "event_timestamp_column": "other",
        "timestamp_field": "other",
        "file_format": None,
        "created_timestamp_column": "made",
        "field_mapping": {"a": "b"},
        "s3_endpoint_override": "http://localhost",
        "connection_ref": ConnectionRef(provider="kubernetes", name="other"),
    },
}
ROWS = [(kind, name) for kind, parameters in PARAMETERS.items() for name in parameters]


@pytest.mark.parametrize(("kind", "name"), ROWS)
def test_each_parameter_has_the_effect_that_the_table_says(kind: str, name: str) -> None:
    value = {**SAME, **GIVEN[kind]}[name]
    if callable(value) and kind != "FeatureService":
        value = value()
    extra = {"udf": None} if name == "feature_transformation" and kind == "OnDemandFeatureView" else {}
    with quiet_feast():
        without = BY_CLASS[kind]()
        try:
            given = BY_CLASS[kind](**{name: value, **extra})
        except Misconfigured as refusal:
            given = str(refusal)
        except (ImportError, TypeError) as refusal:
            given = f"{name}: {refusal}"  # of Feast itself, which has another mode made of other things
    effect = PARAMETERS[kind][name].effect
    if effect == "no effect":
        assert given == without
    elif effect == "honoured":
        assert given != without
    else:
        assert isinstance(given, str)
        assert name in given
        assert PARAMETERS[kind][name].note.split(";")[0] in given
    assert (
        not isinstance(given, str)
        or effect != "honoured"
        or name in {"ttl", "mode", "timestamp_field", "name", "schema"}
    )


@pytest.mark.parametrize("transformation", [PandasTransformation, PythonTransformation])
def test_a_transformation_goes_with_its_mode(transformation: Any) -> None:
    framed_ = framed if transformation is PandasTransformation else doubled
    made = transformation(udf=framed_, udf_string="own")
    for mode in ("pandas", "python"):
        if mode in transformation.__name__.lower():
            answer = compiled_on_demand(udf=None, feature_transformation=made, mode=mode)[-1]
            assert answer["hottest"] in ([4.0], [2.0])
        else:
            with pytest.raises(Misconfigured, match=rf"'extra' has mode '{mode}' and a {transformation.__name__}"):
                compiled_on_demand(udf=None, feature_transformation=made, mode=mode)


def test_former_paths_of_stores_and_engines_are_read_with_one_warning_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = repo(tmp_path)
    file = settings.feature_repo / "feature_store.yaml"
    text = file.read_text()
    assert text.count("millstream.adapters.feast.") == 2
    file.write_text(text.replace("millstream.adapters.feast.", "services.adapters."))
    with quiet_feast(), caplog.at_level("WARNING"):
        read = [load_config(settings) for _ in range(3)]
    assert {type(each.online_store).__module__ for each in read} == {"millstream.adapters.feast.online_store"}
    assert {type(each.batch_engine).__module__ for each in read} == {"millstream.adapters.feast.compute_engine"}
    warnings = [record.getMessage() for record in caplog.records if "deprecated" in record.getMessage()]
    assert warnings == [
        f"{file}: services.adapters.{each}.* is deprecated; write millstream.adapters.feast.{each}.*"
        for each in ("online_store", "compute_engine")
    ]


SETTINGS = [
    ("entity_key_serialization_version: 3", "entity_key_serialization_version: 2", "entity_key_serialization_version"),
    ("millstream.adapters.feast.online_store.MillstreamRedisOnlineStore", "sqlite", "online_store"),
    ("OnlineStore\n", "OnlineStore\n  key_ttl_seconds: 60\n", "key_ttl_seconds"),
    ("OnlineStore\n", "OnlineStore\n  skip_dedup: true\n", "skip_dedup"),
    ("OnlineStore\n", "OnlineStore\n  redis_type: redis_cluster\n", "redis_cluster"),
    ("OnlineStore\n", "OnlineStore\n  colour: red\n", "colour"),
    ("  registry_type: sql", "  registry_type: sql\n  enable_online_feature_view_versioning: true", "versioning"),
    ("adapters.feast.online_store", "nowhere", "millstream.nowhere"),
    ("project: plant", "project: a plant", "a plant"),
    ("project: plant", "project: ${NOT_SET_ANYWHERE}", "NOT_SET_ANYWHERE"),
    ("project: plant", "projekt: plant", "project"),
    ("project: plant", "project: [", "feature_store.yaml"),
    ("registry:\n", "registry: 3\nmore:\n", "registry"),
]


@pytest.mark.parametrize(("before", "after", "word"), SETTINGS)
def test_keys_that_cannot_be_honoured_are_refused_by_name(tmp_path: Path, before: str, after: str, word: str) -> None:
    settings = repo(tmp_path)
    file = settings.feature_repo / "feature_store.yaml"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))
    with quiet_feast(), pytest.raises(Misconfigured) as refusal:
        load_config(settings)
    assert word in str(refusal.value)
    assert str(file) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_variables_of_the_environment_are_put_in_as_feast_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = repo(tmp_path, project="${PLANT}")
    monkeypatch.setenv("PLANT", "north")
    with quiet_feast():
        assert load_config(settings).project == "north"


def test_every_refused_parameter_can_be_recognised() -> None:
    refused: list[Parameter] = [each for rows in TABLES.values() for each in rows.values() if each.effect == "refused"]
    assert refused
    assert all(each.given is not None for each in refused)
