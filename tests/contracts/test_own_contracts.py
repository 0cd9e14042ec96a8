"""A team's own folder of contracts and repo: what ``run`` needs is what ``features show`` and ``init`` ask for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millstream.adapters.feast.repo import open_store
from millstream.adapters.files.contracts import load_all, shipped_dir
from millstream.app.runnable import assemble_runnable
from millstream.cli import contracts as contracts_command
from millstream.errors import Misconfigured
from millstream.settings import Settings, load_settings
from repos import HEAD, STORE, VIEW

TIME = {"type": "long", "logicalType": "timestamp-millis"}
READING: dict[str, Any] = {
    "type": "record",
    "name": "Reading",
    "namespace": "plant",
    "millstream": {"key": "machine_id", "event_id": "reading_id", "event_time": "read_at_ms"},
    "fields": [
        {"name": "reading_id", "type": "string"},
        {"name": "machine_id", "type": "string"},
        {"name": "read_at_ms", "type": TIME},
        {"name": "celsius", "type": ["null", "double"], "default": None},
        {
            "name": "price",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2},
            "default": "\u0000",
        },
    ],
}
SERVICE = '\nplant = FeatureService(name="plant", features=[heat], tags={"baseline": "0.0"})\n'


@pytest.fixture
def plant(tmp_path: Path) -> Settings:
    """Settings of a repo and a folder that holds the contract of its events only."""
    repo, schemas = tmp_path / "repo", tmp_path / "schemas"
    repo.mkdir()
    schemas.mkdir()
    (repo / "feature_store.yaml").write_text(STORE.format(project="plant"))
    (repo / "definitions.py").write_text(HEAD + VIEW + SERVICE)
    (schemas / "readings.avsc").write_text(json.dumps(READING))
    return load_settings({}, feature_repo=repo, schemas_dir=schemas, state_dir=tmp_path / "state")


def test_the_contract_of_the_events_is_enough(plant: Settings) -> None:
    assembly = assemble_runnable(plant)
    shipped = {path.stem for path in shipped_dir().glob("*.avsc")} - {"transactions"}
    assert set(assembly.contracts) == {"readings", *shipped}
    assert contracts_command.contract_of(plant, "readings").schema.names == assembly.contract.schema.names
    for topic in ("scored", "examples"):
        shown = json.loads(contracts_command.contract_of(plant, topic).schema.to_json())
        assert shown == json.loads(assembly.derived[topic].to_json())
        assert {"price", "heat__hottest_1h", "score"} <= {each["name"] for each in shown["fields"]}
    with pytest.raises(Misconfigured, match="engine's own state"):
        contracts_command.contract_of(plant, "measures")
    with pytest.raises(Misconfigured, match=r"there are: alerts, .*scored"):
        contracts_command.contract_of(plant, "nowhere")


def test_a_plain_registry_file_lies_in_the_repos_folder(plant: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    file = plant.feature_repo / "feature_store.yaml"
    head, _, tail = file.read_text().partition("registry:")
    file.write_text(f"{head}registry: data/registry.db\n{tail[tail.index('online_store') :]}")
    elsewhere = plant.feature_repo.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    store = open_store(plant)
    store.registry.list_entities("plant")
    assert list(elsewhere.iterdir()) == []
    assert (plant.feature_repo / "data" / "registry.db").is_file()


def _drop(record: dict[str, Any], name: str) -> None:
    record["fields"] = [each for each in record["fields"] if each["name"] != name]


@pytest.mark.parametrize(
    ("topic", "change", "told"),
    [
        ("readings", lambda record: record.pop("millstream"), r"readings\.avsc: events need key, event_id, event_time"),
        ("readings", lambda record: record["fields"][2].update(type="long"), "'read_at_ms' is the event time"),
        ("readings", lambda record: record["fields"][4]["type"].pop("precision"), "'price': decimal needs a precision"),
        (
            "readings",
            lambda record: record["fields"].append({"name": "m", "type": {"type": "map", "values": "int"}}),
            "map",
        ),
        ("labels", lambda record: _drop(record, "source"), "'labels'.* lacks the field 'source'"),
        ("scored", lambda record: record["fields"][0].update(type="bytes"), "'scored'.* must be .* found bytes"),
        ("examples", lambda record: record["fields"].append({"name": "x", "type": "int"}), "'x' is unknown .* default"),
        ("labels", lambda record: record["millstream"].pop("event_time"), "its event_time must be 'known_at_ms'"),
    ],
)
def test_a_contract_that_run_could_not_use_is_refused_by_name(
    plant: Settings, topic: str, change: Callable[[dict[str, Any]], object], told: str
) -> None:
    assert plant.schemas_dir is not None
    own = plant.schemas_dir / f"{topic}.avsc"
    contract = json.loads((own if own.is_file() else shipped_dir() / own.name).read_text())
    change(contract)
    own.write_text(json.dumps(contract))
    with pytest.raises(Misconfigured, match=told):
        assemble_runnable(plant)


@pytest.mark.parametrize(
    ("topic", "field"), [("examples", "belief_history"), ("quality", "resolution"), ("dead-letters", "stream_time")]
)
def test_a_copy_of_an_earlier_version_s_contract_gets_the_fields_that_were_added(
    plant: Settings, topic: str, field: str
) -> None:
    assert plant.schemas_dir is not None
    contract = json.loads((shipped_dir() / f"{topic}.avsc").read_text())
    _drop(contract, field)
    (plant.schemas_dir / f"{topic}.avsc").write_text(json.dumps(contract))
    assert field in load_all(plant)[topic].schema.names
    assert field in assemble_runnable(plant).contracts[topic].schema.names


def test_a_contract_under_another_name_is_missed(plant: Settings) -> None:
    assert plant.schemas_dir is not None
    (plant.schemas_dir / "readings.avsc").rename(plant.schemas_dir / "reading.avsc")
    with pytest.raises(Misconfigured, match=r"topic 'readings' has no contract .*: reading"):
        assemble_runnable(plant)
    assert "reading" in load_all(plant)


@pytest.mark.parametrize(
    ("file", "before", "after", "told"),
    [
        ("feature_store.yaml", "project: plant", "project: plant-1", "project is 'plant-1'; .* for example 'plant_1'"),
        ("feature_store.yaml", "project: plant", "", "project is None"),
        ("feature_store.yaml", "type: duckdb", "type: nowhere", "Feast cannot read|nowhere"),
        ("definitions.py", 'name="heat",', 'name="heat-1",', r"stream feature view 'heat-1' \(for example 'heat_1'\)"),
        ("definitions.py", "hottest_1h", "hottest-1h", r"feature of 'heat' 'hottest-1h' \(for example 'hottest_1h'\)"),
        ("definitions.py", 'Entity(name="machine"', 'Entity(name="machine-1"', r"entity 'machine-1'"),
    ],
)
def test_names_that_avro_does_not_allow_are_refused_at_start(
    plant: Settings, file: str, before: str, after: str, told: str
) -> None:
    path = plant.feature_repo / file
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(Misconfigured, match=told):
        assemble_runnable(plant)
