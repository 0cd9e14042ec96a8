"""Names, projections and windows that Feast and the engine would understand differently are refused at start."""

from __future__ import annotations

from pathlib import Path

import pytest

from millstream.adapters.feast.declared_columns import check_taken, check_topics
from millstream.adapters.feast.repo import apply, check_columns, load_declaration, open_store, quiet_feast
from millstream.adapters.files.contracts import load_all
from millstream.core.contracts import Contract
from millstream.core.declaration import Declaration
from millstream.derivation import derive
from millstream.errors import Misconfigured
from millstream.settings import load_settings
from repos import CONTRACT, HEAD, SERVICE, VIEW, repo

ON_DEMAND = """
@on_demand_feature_view(
    sources=[RequestSource(name="asked", schema=[Field(name="celsius", dtype=Float64)]), heat],
    schema=[Field(name="excess", dtype=Float64)],
    mode="python",
)
def above(inputs):
    return {"excess": [a for a in inputs["celsius"]]}
"""
BATCH = """
upkeep = FeatureView(name="upkeep", entities=[machine], source=log, schema=[Field(name="repairs", dtype=Int64)])
"""
ALL = VIEW + BATCH + ON_DEMAND
READS_ALL = SERVICE.replace("[heat]", "[heat, above, upkeep]")


def compiled(folder: Path, before: str = "", after: str = "", view: str = ALL, service: str = READS_ALL) -> Declaration:
    texts = {"head": HEAD, "view": view, "service": service}
    changed = {name: text.replace(before, after) if before else text for name, text in texts.items()}
    assert changed != texts or not before
    return load_declaration(repo(folder, **changed))


def test_what_these_tests_change_is_sound(tmp_path: Path) -> None:
    declaration = compiled(tmp_path)
    check_columns(declaration, Contract.parse(CONTRACT))
    assert len(declaration.service.features) == 4


PROJECTED = {
    "with_join_key_map": (
        '[heat.with_join_key_map({"machine_id": "robot_id"})]',
        ["'heat'", "'machine_id' by 'robot_id'"],
    ),
    "with_name": ('[heat.with_name("hot")]', ["'heat'", "with_name('hot')"]),
    "both": ('[heat.with_name("hot").with_join_key_map({"machine_id": "robot_id"})]', ["'heat'", "'robot_id'"]),
    "on-demand by another name": ('[heat, above.with_name("hot")]', ["'above'", "with_name('hot')"]),
    "batch by another key": (
        '[heat, upkeep.with_join_key_map({"machine_id": "x"})]',
        ["'upkeep'", "'machine_id' by 'x'"],
    ),
    "twice": ("[heat, heat]", ["heat__hottest_1h", "more than once"]),
    "twice as text": ('[heat, "heat:hottest_1h"]', ["heat__hottest_1h", "more than once"]),
    "nothing of it": ("[heat[[]]]", ["'heat'", "none of its features"]),
    "text of another version": ('["heat@v2"]', ["'heat@v2'"]),
    "text of nothing": ('["cold"]', ["'cold'"]),
    "text of no feature": ('["heat:cold"]', ["heat:cold", "cold"]),
}


@pytest.mark.parametrize("case", PROJECTED)
def test_a_view_that_a_service_reads_in_another_way_is_refused(tmp_path: Path, case: str) -> None:
    features, words = PROJECTED[case]
    with pytest.raises(Misconfigured) as refusal:
        compiled(tmp_path, service=SERVICE.replace("[heat]", features))
    assert [word for word in ["FeatureService 'failure'", *words] if word not in str(refusal.value)] == []


@pytest.mark.parametrize(
    "features",
    [
        '[heat[["hottest_1h"]]]',
        '[heat[["mean_celsius_86400s"]], heat[["hottest_1h"]]]',
        '["heat"]',
        '["heat:hottest_1h", upkeep]',
        '[heat.with_join_key_map({"machine_id": "machine_id"}), upkeep]',
    ],
)
def test_what_a_service_selects_is_what_feast_returns_for_it(
    tmp_path: Path, features: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from feast.utils import _get_features

    settings = repo(tmp_path, view=ALL, service=SERVICE.replace("[heat]", features))
    apply(settings)
    store = open_store(settings)
    with quiet_feast():
        service = store.get_feature_service("failure")
        theirs = [each.replace(":", "__") for each in _get_features(store.registry, store.project, service)]
    assert [name for name, _ in load_declaration(settings).service.features] == theirs


REFUSED = {
    "ttl": (("timedelta(days=2)", "timedelta(hours=23)"), ["'heat'", "ttl", "23:00:00", "mean_celsius_86400s"]),
    "source by another name": ((", heat]", ', heat.with_name("hot")]'), ["'above'", "'heat'", "with_name('hot')"]),
    "source by another key": (
        (", heat]", ', heat.with_join_key_map({"machine_id": "x"})]'),
        ["'above'", "'heat'", "'machine_id' by 'x'"],
    ),
    "copy in the module": (("failure = ", 'hot = heat.with_name("hot")\nfailure = '), ["two feature views", "'heat'"]),
    "case": (('name="upkeep"', 'name="HEAT"'), ["two feature views", "HEAT"]),
    "entities": (
        ("heat = ", 'other = Entity(name="machine", join_keys=["x"], value_type=ValueType.STRING)\nheat = '),
        ["two entities", "'machine'"],
    ),
    "aggregations": (("timedelta(days=1)),", 'timedelta(days=1), name="hottest_1h"),'), ["'heat'", "'hottest_1h'"]),
    "joined names of a service": (
        (
            'name="upkeep", entities=[machine], source=log, schema=[Field(name="repairs"',
            'name="heat__a", entities=[machine], source=log, schema=[Field(name="repairs"',
        ),
        ["heat__a__repairs", "more than once"],
    ),
    "output and feature": (('name="excess"', 'name="hottest_1h"'), ["'above'", "'hottest_1h'"]),
    "request field and feature": (('name="celsius", dtype', 'name="hottest_1h", dtype'), ["'above'", "'hottest_1h'"]),
    "spaces": (('name="upkeep"', 'name="up keep"'), ["up keep"]),
    "dots": (('name="repairs"', 'name="re.pairs"'), ["re.pairs"]),
    "not of A to Z": (('name="heat"', 'name="wärme"'), ["wärme"]),
    "digit": (('name="hottest_1h"', 'name="1h"'), ["1h"]),
    "online": (('schema=[Field(name="repairs"', 'online=False, schema=[Field(name="repairs"'), ["'upkeep'", "online"]),
    "no features": (('schema=[Field(name="repairs", dtype=Int64)]', "schema=[]"), ["'upkeep'", "none of its features"]),
    "no entity": (("entities=[machine], source=log", "source=log"), ["'upkeep'", "no entity"]),
    "lateness": (("minutes=10", "minutes=-10"), ["'heat'", "watermark_delay_threshold", "negative"]),
    "microseconds": (("hours=1)", "microseconds=1500)"), ["hottest_1h", "milliseconds"]),
    "chained": ((", heat],", ", above_too.projection],"), ["'above'", "'above_too'", "on-demand"]),
    "exit": (("machine = Entity", "import sys; sys.exit(0)\nmachine = Entity"), ["definitions.py, line", "SystemExit"]),
    "syntax": (("machine = Entity", "def\nmachine = Entity"), ["definitions.py", "SyntaxError"]),
    "itself": (("machine = Entity", "import definitions; definitions.x\nmachine = Entity"), ["circular import"]),
}
# The service reads the features of the renamed views.
SECOND = """
@on_demand_feature_view(sources=[heat], schema=[Field(name="more", dtype=Float64)], mode="python")
def above_too(inputs):
    return {"more": inputs["hottest_1h"]}
"""


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_misunderstood_is_refused_by_name(tmp_path: Path, case: str) -> None:
    (before, after), words = REFUSED[case]
    view = VIEW + BATCH + SECOND + ON_DEMAND if case == "chained" else ALL
    if case.startswith("joined names"):
        view = ALL.replace('name="hottest_1h"', 'name="a__repairs"')
    with pytest.raises(Misconfigured) as refusal:
        compiled(tmp_path, before, after, view=view)
    said = str(refusal.value)
    assert [word for word in words if word not in said] == []
    assert "\n" not in said


def test_features_of_two_views_with_one_column_are_refused(tmp_path: Path) -> None:
    second = VIEW.replace("heat = ", "other = ").replace('name="heat"', 'name="heat__a"').replace("heat_r", "other_r")
    view = VIEW.replace("hottest_1h", "a__hottest_1h") + second
    with pytest.raises(Misconfigured, match=r"'heat__a'.*'hottest_1h'.*'heat__a__hottest_1h'.*'heat'"):
        compiled(tmp_path, view=view, service=SERVICE)


def test_objects_that_pretend_to_be_of_a_class_are_passed_over(tmp_path: Path) -> None:
    odd = """
class Odd:
    @property
    def __class__(self):
        raise RuntimeError("odd")

odd = Odd()
failure = """
    compiled(tmp_path, "failure = ", odd.lstrip())


# ---- together with the contract


COLUMNS = {
    "request type": (
        ('name="celsius", dtype=Float64', 'name="celsius", dtype=String'),
        ["'above'", "'celsius'", "double"],
    ),
    "request of no column": (
        ('name="celsius", dtype=Float64', 'name="kelvin", dtype=Float64'),
        ["'above'", "'kelvin'"],
    ),
    "request of a time": (
        ('name="celsius", dtype=Float64', 'name="read_at_ms", dtype=UnixTimestamp'),
        ["'read_at_ms'"],
    ),
    "feature of a batch view": ((", heat]", ", upkeep]"), ["'above'", "'upkeep__repairs'"]),
    "batch key": (
        ("upkeep = ", 'site = Entity(name="site", join_keys=["state"], value_type=ValueType.INT64)\nupkeep = '),
        ["'upkeep'", "'state'", "string"],
    ),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_declarations_that_the_contract_does_not_fit_are_refused(tmp_path: Path, case: str) -> None:
    (before, after), words = COLUMNS[case]
    view = ALL.replace("entities=[machine], source=log", "entities=[site], source=log") if case == "batch key" else ALL
    declaration = compiled(tmp_path, before, after, view=view)
    with pytest.raises(Misconfigured) as refusal:
        check_columns(declaration, Contract.parse(CONTRACT))
    assert [word for word in words if word not in str(refusal.value)] == []


def taken(declaration: Declaration, contract: str) -> None:
    contracts, parsed = load_all(load_settings({})), Contract.parse(contract)
    check_columns(declaration, parsed)
    check_taken(declaration, parsed, contracts["scored"])
    check_topics(derive(declaration, parsed, contracts["scored"], contracts["examples"]))


def with_field(name: str) -> str:
    field = '{"name": "%s", "type": ["null", "double"], "default": null},' % name  # noqa: UP031 braces
    return CONTRACT.replace('"fields": [', f'"fields": [{field}')


@pytest.mark.parametrize("field", ["score", "arm", "model", "threshold", "received_at_ms", "source_offset"])
def test_an_event_field_that_the_engine_writes_is_refused(tmp_path: Path, field: str) -> None:
    with pytest.raises(Misconfigured, match=f"'readings' has the field.*{field}"):
        taken(compiled(tmp_path), with_field(field))


@pytest.mark.parametrize("field", ["heat__hottest_1h", "machine__feature_time_us", "above__excess", "upkeep__repairs"])
def test_an_event_field_that_is_a_features_column_is_refused(tmp_path: Path, field: str) -> None:
    with pytest.raises(Misconfigured, match=f"'{field}'"):
        taken(compiled(tmp_path), with_field(field))


@pytest.mark.parametrize("name", ["join", "learn", "quality", "measure", "monitor", "scored", "models", "examples"])
def test_an_entity_called_like_a_stage_or_a_topic_is_refused(tmp_path: Path, name: str) -> None:
    declaration = compiled(tmp_path, 'Entity(name="machine"', f'Entity(name="{name}"')
    with pytest.raises(Misconfigured, match=f"no entity may be called '{name}'"):
        taken(declaration, CONTRACT)


def test_two_topics_of_one_name_are_refused(tmp_path: Path) -> None:
    second = """
changed = Entity(name="changelog", join_keys=["state"], value_type=ValueType.STRING)
changes = StreamFeatureView(
    name="changes", entities=[changed], source=readings("c", topic="machine"), timestamp_field="read_at_ms",
    aggregations=[Aggregation(column="celsius", function="count", time_window=timedelta(days=1), name="n")],
    schema=[Field(name="n", dtype=Int64)],
)
"""
    view = VIEW.replace('readings("heat_readings")', 'readings("heat_readings", topic="machine")') + second
    with pytest.raises(Misconfigured, match=r"machine\.changelog"):
        taken(compiled(tmp_path, view=view, service=SERVICE), CONTRACT)


def test_a_view_may_have_the_name_of_an_events_column(tmp_path: Path) -> None:
    declaration = compiled(tmp_path, 'name="heat"', 'name="celsius"')
    taken(declaration, CONTRACT)
    assert ("celsius__hottest_1h", "float32") in declaration.service.features


# ---- what Feast itself refuses when it applies the repo


APPLIED = {
    "type": ('[a for a in inputs["celsius"]]', '["False"]', ["'above'", "excess FLOAT64", "excess STRING"]),
    "raises": ('inputs["celsius"]', 'inputs["kelvin"]', ["'above'", "KeyError", "kelvin"]),
}


@pytest.mark.parametrize("case", APPLIED)
def test_what_feast_refuses_to_apply_is_one_sentence(tmp_path: Path, case: str) -> None:
    before, after, words = APPLIED[case]
    view = ALL.replace(before, after)
    assert view != ALL
    with pytest.raises(Misconfigured) as refusal:
        apply(repo(tmp_path, view=view, service=READS_ALL))
    said = str(refusal.value)
    assert [word for word in words if word not in said] == []
    assert "\n" not in said
