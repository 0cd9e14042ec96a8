"""Feast repos compiled: what is declared is what the engine gets, and what it cannot compute is refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from millstream.adapters.feast.repo import apply, check_columns, load_declaration, open_store, quiet_feast
from millstream.adapters.files.contracts import load_all, load_contract
from millstream.cli.features import described, entity_row
from millstream.core.contracts import Contract
from millstream.core.declaration import Aggregate, View
from millstream.derivation import derive
from millstream.errors import Misconfigured
from millstream.settings import Settings, load_settings
from millstream.topology import Topology
from repos import CONTRACT, HEAD, SERVICE, VIEW, repo

HOUR_MS, DAY_MS = 3_600_000, 86_400_000


def test_the_reference_repo_reads_features_that_its_contract_provides() -> None:
    settings = load_settings({})
    declaration = load_declaration(settings)
    check_columns(declaration, load_contract(settings, declaration.topic))
    assert declaration.project == "millstream_cards"
    assert len(declaration.service.features) == 21
    for view in declaration.views:
        column = "label" if view.of_labels else "amount"
        windows = {(a.function, a.column, a.window_ms) for a in view.aggregates}
        assert windows == {(f, column, days * DAY_MS) for f in ("count", "mean") for days in (1, 7, 30)}
    assert [(view.entity, view.join_key, view.of_labels) for view in declaration.views] == [
        ("customer", "customer_id", False),
        ("terminal", "terminal_id", False),
        ("terminal", "terminal_id", True),
    ]


def test_weekend_and_night_are_those_of_utc() -> None:
    (context,) = load_declaration(load_settings({})).on_demand
    times = {
        1_533_340_799_999: (0, 0),  # Friday 2018-08-03 23:59:59.999
        1_533_340_800_000: (1, 1),  # Saturday 00:00
        1_533_365_999_999: (1, 1),  # Saturday 06:59:59.999
        1_533_366_000_000: (1, 0),  # Saturday 07:00
        1_533_513_599_999: (1, 0),  # Sunday 23:59:59.999
        1_533_513_600_000: (0, 1),  # Monday 00:00
    }
    outputs = context.compute({"amount": [1.0] * len(times), "event_time_ms": list(times)})
    assert list(zip(outputs["is_weekend"], outputs["is_night"], strict=True)) == list(times.values())
    assert outputs["paid_amount"] == [1.0] * len(times)


def test_a_repo_of_another_trade_compiles(tmp_path: Path) -> None:
    declaration = load_declaration(repo(tmp_path))
    assert declaration.views == (
        View(
            "heat",
            "machine",
            "machine_id",
            "string",
            "readings",
            "read_at_ms",
            600_000,
            (
                Aggregate("hottest_1h", "float32", "celsius", "max", HOUR_MS),
                Aggregate("mean_celsius_86400s", "float64", "celsius", "mean", DAY_MS),
            ),
        ),
    )
    assert declaration.service.features == (("heat__hottest_1h", "float32"), ("heat__mean_celsius_86400s", "float64"))
    assert declaration.service.threshold == 0.7
    check_columns(declaration, Contract.parse(CONTRACT))


def test_a_view_that_is_not_online_is_compiled_so(tmp_path: Path) -> None:
    (view,) = load_declaration(repo(tmp_path, VIEW.replace("ttl=", "online=False, ttl="))).views
    assert not view.online


def test_an_aggregation_added_is_an_aggregation_computed(tmp_path: Path) -> None:
    copied = tmp_path / "feature_repo"
    shutil.copytree(load_settings({}).feature_repo, copied)
    definitions = copied / "definitions.py"
    text = definitions.read_text()
    added = text.replace(
        "    return StreamFeatureView(",
        '    aggregations.append(Aggregation(column="amount", function="max", time_window=timedelta(hours=6)))\n'
        '    schema.append(Field(name="max_amount_21600s", dtype=Float64))\n'
        "    return StreamFeatureView(",
    )
    assert added != text
    definitions.write_text(added)
    settings = Settings(feature_repo=copied, state_dir=tmp_path / "state")
    declaration = load_declaration(settings)
    for view in declaration.views:
        assert view.aggregates[-1] == Aggregate("max_amount_21600s", "float64", "amount", "max", 6 * HOUR_MS)
        assert (f"{view.name}__max_amount_21600s", "float64") in declaration.service.features
    check_columns(declaration, load_contract(load_settings({}), declaration.topic))


def test_files_of_a_repo_import_one_another_and_feastignore_counts(tmp_path: Path) -> None:
    settings = repo(tmp_path, view="from views import heat\n")
    (settings.feature_repo / "views.py").write_text(HEAD + VIEW)
    (settings.feature_repo / "broken.py").write_text("raise RuntimeError('not for Feast')")
    (settings.feature_repo / ".feastignore").write_text("broken.py\n")
    assert [view.name for view in load_declaration(settings).views] == ["heat"]


def test_two_repos_with_files_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    first, second = repo(tmp_path / "a"), repo(tmp_path / "b", view=VIEW.replace('"max"', '"min"'))
    functions = [load_declaration(each).views[0].aggregates[0].function for each in (first, second, first)]
    assert functions == ["max", "min", "max"]


def test_a_batch_view_of_the_service_is_carried(tmp_path: Path) -> None:
    batch = """
site = Entity(name="site", join_keys=["site_id"], value_type=ValueType.INT64)
upkeep = FeatureView(name="upkeep", entities=[machine, site], source=log, ttl=timedelta(days=1),
                     schema=[Field(name="repairs", dtype=Int64), Field(name="maker", dtype=String)])
"""
    settings = repo(tmp_path, view=VIEW + batch, service=SERVICE.replace("[heat]", "[heat, upkeep]"))
    (view,) = load_declaration(settings).batch
    assert view.join_keys == (("machine_id", "string"), ("site_id", "int64"))
    assert view.features == (("repairs", "int64"), ("maker", "string"))


@pytest.mark.parametrize("mode", ["python", "pandas"])
def test_a_transform_may_use_full_or_short_names_of_its_inputs(tmp_path: Path, mode: str) -> None:
    transform = f"""
asked = RequestSource(name="asked", schema=[Field(name="celsius", dtype=Float64)])

@on_demand_feature_view(sources=[heat, asked], schema=[Field(name="excess", dtype=Float64)], mode="{mode}")
def above(inputs):
    if "{mode}" == "python":
        return {{"excess": [a - b for a, b in zip(inputs["celsius"], inputs["heat__mean_celsius_86400s"])]}}
    inputs["excess"] = inputs["celsius"] - inputs["mean_celsius_86400s"]
    return inputs[["excess"]]
"""
    settings = repo(tmp_path, view=VIEW + transform, service=SERVICE.replace("[heat]", "[heat, above]"))
    declaration = load_declaration(settings)
    (view,) = declaration.on_demand
    assert set(view.inputs) == {"celsius", "heat__hottest_1h", "heat__mean_celsius_86400s"}
    given = {"celsius": [5.0, 7.0], "heat__hottest_1h": [9.0, 9.0], "heat__mean_celsius_86400s": [1.0, 2.0]}
    assert view.compute(given) == {"excess": [4.0, 5.0]}
    check_columns(declaration, Contract.parse(CONTRACT))


REFUSED = {
    "unknown function": (('function="max"', 'function="median"'), ["hottest_1h", "'median'", "count_distinct"]),
    "no window": (
        ("time_window=timedelta(hours=1), ", ""),
        ["hottest_1h", "time_window"],
    ),
    "slide interval": (
        ("timedelta(hours=1), name", "timedelta(hours=1), slide_interval=timedelta(minutes=1), name"),
        ["hottest_1h", "slide_interval"],
    ),
    "no field": (('Field(name="hottest_1h", dtype=Float32), ', ""), ["hottest_1h", "schema"]),
    "field without aggregation": (
        ("schema=[", 'schema=[Field(name="stray", dtype=Int64), '),
        ["'heat'", "stray"],
    ),
    "field type": (("dtype=Float32", "dtype=Array(Float32)"), ["hottest_1h", "Array(Float32)", "Float64"]),
    "text as a maximum": (("dtype=Float32", "dtype=String"), ["hottest_1h", "string", "float64"]),
    "a count that is real": (
        (
            'function="max", time_window=timedelta(hours=1), name="hottest_1h"',
            'function="count", time_window=timedelta(hours=1), name="hottest_1h"',
        ),
        ["hottest_1h", "float32", "int64"],
    ),
    "entity type": (("value_type=ValueType.STRING", "value_type=ValueType.INT32"), ["'machine'", "INT32", "INT64"]),
    "several join keys": (
        ('join_keys=["machine_id"]', 'join_keys=["machine_id", "site"]'),
        ["definitions.py, line", "join key"],
    ),
    "transformed stream": (
        ('timestamp_field="read_at_ms",\n    agg', 'timestamp_field="read_at_ms", udf=lambda df: df,\n    agg'),
        ["'heat'", "transformation"],
    ),
    "no baseline": (('"baseline": "CASE WHEN celsius > 90 THEN 1.0 ELSE 0.0 END", ', ""), ["'failure'", "baseline"]),
    "baseline is no SQL": (("CASE WHEN celsius > 90", "CASE WHEN celsius >"), ["'failure'", "baseline"]),
    "threshold": (('"0.7"', '"high"'), ["'failure'", "threshold", "high"]),
    "threshold range": (('"0.7"', '"7"'), ["'failure'", "threshold", "7"]),
    "no service": (("failure = FeatureService", "_ = lambda **_: None\nfailure = _"), ["FeatureService", "none"]),
    "own error": (("machine = Entity", "1 / 0\nmachine = Entity"), ["definitions.py", "ZeroDivisionError"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_run_is_refused_by_name(tmp_path: Path, case: str) -> None:
    (before, after), words = REFUSED[case]
    texts = {name: text.replace(before, after) for name, text in (("head", HEAD), ("view", VIEW), ("service", SERVICE))}
    assert texts != {"head": HEAD, "view": VIEW, "service": SERVICE}
    with pytest.raises(Misconfigured) as refusal:
        load_declaration(repo(tmp_path, **texts))
    assert [word for word in words if word not in str(refusal.value)] == []


LABELLED = """
failures = StreamFeatureView(
    name="failures",
    entities=[machine],
    source=KafkaSource(
        name="failures", topic="examples", timestamp_field="label_known_at_ms", message_format=AvroFormat(""),
        batch_source=log,
    ),
    timestamp_field="label_known_at_ms",
    aggregations=[
        Aggregation(column="label", function="mean", time_window=timedelta(days=1), name="share"),
        Aggregation(column="state", function="count_distinct", time_window=timedelta(days=1), name="states"),
    ],
    schema=[Field(name="share", dtype=Float64), Field(name="states", dtype=Int64)],
)
"""


def _derived(settings: Settings) -> Topology:
    declaration, contracts = load_declaration(settings), load_all(load_settings({}))
    contract = Contract.parse(CONTRACT)
    check_columns(declaration, contract)
    return derive(declaration, contract, contracts["scored"], contracts["examples"])


def test_labels_of_any_entity_and_column_of_its_events_are_aggregated(tmp_path: Path) -> None:
    (stage,) = _derived(repo(tmp_path, view=VIEW + LABELLED)).stages
    assert stage.labels is not None
    assert stage.inputs == ("readings", "examples.machine")
    assert stage.labels.key_column == "machine_id"
    # Only what is aggregated goes along.
    names = {"reading_id", "machine_id", "state", "label", "label_known_at_ms", "revision"}
    assert set(stage.labels.schema.names) == names
    assert {"failures__share", "failures__states"} < set(stage.output_schema.names)
    assert (stage.labels.schema["label"].nullable, stage.labels.schema["reading_id"].nullable) == (True, False)


def test_a_repo_without_label_views_has_no_second_input(tmp_path: Path) -> None:
    topology = _derived(repo(tmp_path))
    assert topology.stages[0].inputs == ("readings",)
    assert not any(topic.name.startswith("examples.") for topic in topology.topics)


UNLABELLED = {
    "another time": (("label_known_at_ms", "joined_at_ms"), ["'failures'", "joined_at_ms", "label_known_at_ms"]),
    "lateness": (
        ("batch_source=log,", "batch_source=log, watermark_delay_threshold=timedelta(days=1),"),
        ["'failures'", "watermark_delay_threshold"],
    ),
    "unknown column": (('column="label"', 'column="delay"'), ["'failures'", "'delay'", "celsius"]),
    "text averaged": (('column="label"', 'column="state"'), ["'failures'", "'state'", "string"]),
    "unknown function": (('function="mean"', 'function="median"'), ["share", "'median'", "count_distinct"]),
    "no events of the entity": (
        ("failures = ", 'plant = Entity(name="plant", join_keys=["state"], value_type=ValueType.STRING)\nfailures = '),
        ["'failures'", "'plant'", "readings"],
    ),
}


@pytest.mark.parametrize("what", UNLABELLED)
def test_label_views_that_cannot_be_computed_are_refused(tmp_path: Path, what: str) -> None:
    (before, after), told = UNLABELLED[what]
    view = LABELLED.replace(before, after)
    if "plant" in after:
        view = view.replace("entities=[machine]", "entities=[plant]")
    assert view != LABELLED
    with pytest.raises(Misconfigured) as refused:
        _derived(repo(tmp_path, view=VIEW + view))
    assert all(each in str(refused.value) for each in told), str(refused.value)


def test_several_topics_and_several_services_are_refused(tmp_path: Path) -> None:
    other = VIEW.replace("heat", "cold").replace('readings("cold_readings")', 'readings("c", "others")')
    with pytest.raises(Misconfigured, match="one topic; found: others, readings"):
        load_declaration(repo(tmp_path / "topics", view=VIEW + other))
    second = SERVICE.replace("failure", "wear")
    with pytest.raises(Misconfigured, match=r"exactly one FeatureService.*failure, wear"):
        load_declaration(repo(tmp_path / "services", service=SERVICE + second))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('column="celsius", function="max"', 'column="kelvin", function="max"', ["'heat'", "'kelvin'", "celsius"]),
        (
            'column="celsius", function="max"',
            'column="state", function="max"',
            ["'heat'", "'state'", "string", "double"],
        ),
        ('"machine_id"', '"robot_id"', ["'heat'", "'robot_id'", "machine_id"]),
        ("value_type=ValueType.STRING", "value_type=ValueType.INT64", ["'heat'", "'machine_id'", "string", "long"]),
        ('"read_at_ms"', '"celsius"', ["'heat'", "'celsius'"]),
    ],
)
def test_columns_the_contract_lacks_are_refused(tmp_path: Path, before: str, after: str, words: list[str]) -> None:
    declaration = load_declaration(repo(tmp_path, view=VIEW.replace(before, after), head=HEAD.replace(before, after)))
    with pytest.raises(Misconfigured) as refusal:
        check_columns(declaration, Contract.parse(CONTRACT))
    assert [word for word in words if word not in str(refusal.value)] == []


def test_counting_texts_is_fine(tmp_path: Path) -> None:
    view = VIEW.replace('column="celsius", function="max"', 'column="state", function="count_distinct"')
    check_columns(load_declaration(repo(tmp_path, view=view.replace("Float32", "Int64"))), Contract.parse(CONTRACT))


def test_applying_twice_changes_nothing_and_what_went_is_forgotten(tmp_path: Path) -> None:
    settings = repo(tmp_path, view=VIEW + VIEW.replace("heat", "cold"))
    apply(settings)
    apply(settings)
    store = open_store(settings)
    with quiet_feast():
        assert {view.name for view in store.list_stream_feature_views()} == {"heat", "cold"}
    settings.feature_repo.joinpath("definitions.py").write_text(HEAD + VIEW + SERVICE)
    settings = settings.model_copy(update={"redis_url": None})
    with pytest.MonkeyPatch.context() as patch:
        # The online rows of the view that went would be deleted, but no server runs here.
        patch.setattr("millstream.adapters.feast.online_store.MillstreamRedisOnlineStore.update", lambda *_, **__: None)
        apply(settings)
    with quiet_feast():
        assert {view.name for view in open_store(settings).list_stream_feature_views()} == {"heat"}
    assert (tmp_path / "state" / "feast-registry.db").is_file()


def test_the_command_line_names_features_and_keys(tmp_path: Path) -> None:
    declaration = load_declaration(repo(tmp_path))
    assert described(declaration)[0] == {
        "feature": "heat__hottest_1h",
        "type": "float32",
        "what": "max of celsius over 1:00:00",
        "key": "machine_id",
        "read_by": "failure",
    }
    assert entity_row(declaration, ["machine_id=a=b"]) == {"machine_id": "a=b"}
    with pytest.raises(Misconfigured, match="machine_id"):
        entity_row(declaration, ["robot=1"])
    cards = load_declaration(load_settings({}))
    assert entity_row(cards, ["customer_id=-7"]) == {"customer_id": -7}
    with pytest.raises(Misconfigured, match="whole number"):
        entity_row(cards, ["customer_id=seven"])
