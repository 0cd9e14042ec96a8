"""One suite for every model registry: the fake, and MLflow on a new sqlite database."""

from __future__ import annotations

from itertools import count

import pytest

from fakes_models import a_body, a_manifest
from fakes_registry import FakeRegistry
from millstream.adapters.models.registry import open_registry
from millstream.core.models.manifest import sha256
from millstream.errors import Refused
from millstream.ports import ModelRegistry
from millstream.settings import Settings

_numbers = count(1)


@pytest.fixture(scope="module")
def mlflow_registry(tmp_path_factory):
    """MLflow's tables take seconds to make, so every test has a name of its own instead of a database."""
    return open_registry(Settings(state_dir=tmp_path_factory.mktemp("state")))


@pytest.fixture(params=["fake", "mlflow"])
def registry(request) -> ModelRegistry:
    return FakeRegistry() if request.param == "fake" else request.getfixturevalue("mlflow_registry")


@pytest.fixture
def name() -> str:
    return f"model-{next(_numbers)}"


MANIFEST = a_manifest(a_body()).to_json()


def test_nothing_is_known_of_a_name_never_registered(registry, name):
    assert registry.load(name) is None
    assert registry.load(name, 1) is None
    assert registry.previous(name) is None
    assert registry.versions(name) == []
    with pytest.raises(Refused, match="no version 1"):
        registry.promote(name, 1)


def test_versions_count_from_one_and_come_back_byte_for_byte(registry, name):
    body = a_body() + "\nümlaut\r\n"
    first = registry.register(name, MANIFEST, body, {"auc": 0.5, "card_precision_at_100": 0.25})
    second = registry.register(name, MANIFEST, a_body(), {"auc": 0.75})
    assert (first.version, second.version) == (1, 2)
    assert registry.load(name, 1) == first
    assert first.body == body
    assert first.sha256 == sha256(body)
    assert registry.versions(name) == [
        (1, {"auc": 0.5, "card_precision_at_100": 0.25}, False),
        (2, {"auc": 0.75}, False),
    ]
    assert registry.load(name) is None  # none of them was promoted
    assert registry.load(name, 3) is None


def test_the_champion_is_the_one_promoted_last(registry, name):
    for _ in range(3):
        registry.register(name, MANIFEST, a_body(), {})
    assert registry.promote(name, 2) == registry.load(name) == registry.load(name, 2)
    assert registry.previous(name) is None
    registry.promote(name, 3)
    registry.promote(name, 3)  # once more changes nothing
    assert registry.load(name).version == 3
    assert registry.previous(name) == 2
    assert [champion for _, _, champion in registry.versions(name)] == [False, False, True]


def test_rolling_back_swaps_the_two(registry, name):
    for _ in range(2):
        registry.register(name, MANIFEST, a_body(), {})
    registry.promote(name, 1)
    registry.promote(name, 2)
    registry.promote(name, registry.previous(name))
    assert (registry.load(name).version, registry.previous(name)) == (1, 2)


def test_a_refused_promotion_leaves_the_champion(registry, name):
    registry.register(name, MANIFEST, a_body(), {})
    registry.promote(name, 1)
    with pytest.raises(Refused, match="no version 9"):
        registry.promote(name, 9)
    assert registry.load(name).version == 1


def test_names_do_not_see_each_other(registry, name):
    other = f"{name}'s twin"
    registry.register(name, MANIFEST, a_body(), {})
    registry.register(other, MANIFEST, a_body(), {"auc": 1.0})
    assert registry.load(other, 2) is None
    assert registry.versions(other) == [(1, {"auc": 1.0}, False)]


def test_mlflow_keeps_everything_in_the_state_directory(mlflow_registry, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mlflow_registry.register(name, MANIFEST, a_body(), {"auc": 0.5})
    assert list(tmp_path.iterdir()) == []


def test_mlflow_has_the_plot_and_the_parameters(mlflow_registry, name):
    from mlflow import MlflowClient

    made = mlflow_registry.register(name, MANIFEST, a_body(), {"auc": 0.5})
    client = MlflowClient(mlflow_registry._uri, mlflow_registry._uri)
    run = client.get_run(client.get_model_version(name, str(made.version)).run_id)
    assert run.data.params["num_leaves"] == "7"
    assert {file.path for file in client.list_artifacts(run.info.run_id, "model")} == {
        "model/importance.png",
        "model/manifest.json",
        "model/model.txt",
    }


def test_a_file_changed_behind_mlflows_back_is_refused(mlflow_registry, name):
    made = mlflow_registry.register(name, MANIFEST, "tree\nchange me", {})
    (path,) = [each for each in mlflow_registry._artifacts.rglob("model.txt") if "change me" in each.read_text()]
    path.write_text("tree\nchanged")
    with pytest.raises(Refused, match="not the one registered"):
        mlflow_registry.load(name, made.version)
