"""The project's folder is found as git finds its root; its file is read, the environment wins, secrets are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import Misconfigured
from millstream.project_file import find_folder
from millstream.settings import Settings, environment_of, load_settings


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder with an empty file, which is the working directory."""
    folder = tmp_path.resolve() / "mine"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "millstream.toml").touch()
    monkeypatch.chdir(folder)
    return folder


def write(folder: Path, text: str) -> Path:
    file = folder / "millstream.toml"
    file.write_text(text, encoding="utf-8")
    return file


def refusal(folder: Path, text: str) -> str:
    write(folder, text)
    with pytest.raises(Misconfigured) as caught:
        load_settings()
    return str(caught.value)


def test_thenearest_folder_upwards_is_the_project_s(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_folder(project / "a" / "b") == project
    (project / "a" / "feature_repo").mkdir()
    (project / "a" / "feature_repo" / "feature_store.yaml").touch()
    assert find_folder(project / "a" / "b") == project / "a", "an existing checkout has no millstream.toml"
    assert find_folder(project / "a" / "feature_repo") == project / "a"
    assert find_folder(project.parent) is None
    monkeypatch.setenv("MILLSTREAM_PROJECT", "a/b")
    with pytest.raises(Misconfigured, match=r"MILLSTREAM_PROJECT is a/b, which holds neither millstream\.toml nor"):
        find_folder()
    monkeypatch.setenv("MILLSTREAM_PROJECT", "a")
    assert find_folder() == project / "a"
    monkeypatch.setenv("MILLSTREAM_PROJECT", "")
    assert find_folder() is None


def test_paths_are_relative_to_the_project_wherever_a_command_runs(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().feature_repo == Path("feature_repo")
    write(project, 'schemas_dir = "contracts"\nonline_model = "/models/one.py"\n')
    assert load_settings().schemas_dir == Path("contracts")
    monkeypatch.chdir("a/b")
    found = load_settings()
    assert (found.feature_repo, found.state_dir) == (project / "feature_repo", project / ".millstream")
    assert (found.schemas_dir, found.online_model) == (project / "contracts", Path("/models/one.py"))
    monkeypatch.setenv("MILLSTREAM_STATE_DIR", "here")
    assert load_settings().state_dir == Path("here"), "as any path in a shell"
    assert load_settings(state_dir=Path("given")).state_dir == Path("given")
    monkeypatch.chdir(project.parent)
    assert load_settings().state_dir == Path("here")
    assert load_settings().feature_repo == Path("feature_repo")
    assert load_settings(project=project / "a").feature_repo == project / "feature_repo"


def test_the_environment_wins_over_the_file_and_options_over_both(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project, 'partitions = 6\nquality_top_k = 5\n[kafka]\n"bootstrap.servers" = "a:1"\nclient.id = "x"\n')
    found = load_settings()
    assert (found.partitions, found.quality_top_k) == (6, 5)
    assert found.kafka == {"bootstrap.servers": "a:1", "client.id": "x"}
    monkeypatch.setenv("MILLSTREAM_PARTITIONS", "7")
    monkeypatch.setenv("MILLSTREAM_QUALITY_CARDS", "8")  # its former name
    monkeypatch.setenv("MILLSTREAM_KAFKA_BOOTSTRAP_SERVERS", "b:2")
    found = load_settings()
    assert (found.partitions, found.quality_top_k) == (7, 8)
    assert found.kafka == {"bootstrap.servers": "b:2", "client.id": "x"}
    assert load_settings(partitions=9).partitions == 9
    assert load_settings({}).kafka == {}, "who gives an environment has no project"


@pytest.mark.parametrize(
    ("line", "named", "variable"),
    [
        ('snapshot_key = "0123hunter2"', "snapshot_key", "MILLSTREAM_SNAPSHOT_KEY"),
        (
            'schema_registry_user_info = "me:hunter2"',
            "schema_registry_user_info",
            "MILLSTREAM_SCHEMA_REGISTRY_USER_INFO",
        ),
        ('redis_url = "redis://:hunter2@h:1"', "redis_url", "MILLSTREAM_REDIS_URL"),
        ('redis_url = "redis://h:1?password=hunter2"', "redis_url", "MILLSTREAM_REDIS_URL"),
        ('schema_registry_url = "http://me:hunter2@h"', "schema_registry_url", "MILLSTREAM_SCHEMA_REGISTRY_URL"),
        (
            'mlflow_tracking_uri = "postgresql://me:hunter2@h/d"',
            "mlflow_tracking_uri",
            "MILLSTREAM_MLFLOW_TRACKING_URI",
        ),
        ('[kafka]\n"sasl.password" = "hunter2"', "kafka, sasl.password", "MILLSTREAM_KAFKA_SASL_PASSWORD"),
        ('[kafka]\nssl.key.password = "hunter2"', "kafka, ssl.key.password", "MILLSTREAM_KAFKA_SSL_KEY_PASSWORD"),
        ('[kafka]\nSASL_PASSWORD = "hunter2"', "kafka, sasl.password", "MILLSTREAM_KAFKA_SASL_PASSWORD"),
        ('[kafka]\nssl.key.pem = "hunter2"', "kafka, ssl.key.pem", "MILLSTREAM_KAFKA_SSL_KEY_PEM"),
    ],
)
def test_secrets_are_refused_in_the_file_and_not_shown(project: Path, line: str, named: str, variable: str) -> None:
    text = refusal(project, line)
    assert f"{project / 'millstream.toml'} is wrong:\n  {named}: it " in text
    assert f"remove it here and set {variable} in the environment" in text
    assert "hunter2" not in text


def test_what_only_looks_like_a_secret_is_allowed(project: Path) -> None:
    write(
        project,
        'redis_url = "redis://h:1/0"\nschema_registry_url = "http://h"\n[kafka]\n"ssl.key.location" = "/run/key.pem"\n'
        '"sasl.oauthbearer.token.endpoint.url" = "https://h/token"\n"socket.keepalive.enable" = true\n',
    )
    found = load_settings()
    assert found.redis_url is not None
    assert found.redis_url.get_secret_value() == "redis://h:1/0"
    assert found.kafka["socket.keepalive.enable"] == "true"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("partitons = 4", "partitons: there is no such setting; did you mean partitions?"),
        ('MILLSTREAM_STATE_DIR = "x"', "MILLSTREAM_STATE_DIR: there is no such setting; did you mean state_dir?"),
        ('feature-repo = "x"', "feature-repo: there is no such setting; did you mean feature_repo?"),
        ("zzz = 1", "zzz: there is no such setting; the settings are answer, "),
        ("[kafak]", "kafak: there is no such setting; did you mean kafka?"),
        ("kafka = 3", "kafka is a table of librdkafka settings; write [kafka] above them"),
        ("[kafka]\nretries = [1]", "kafka, retries: it is a list; write a string, a number, true or false"),
        ("partitions = 0", "millstream.toml, partitions: Input should be greater than or equal to 1"),
        ("state_dir = 3", "millstream.toml, state_dir: "),
        ("quality_top_k = 0", "millstream.toml, quality_top_k: "),
        ('[kafka]\nacks = "1"', "millstream.toml, kafka, acks: the engine itself decides acks (all or -1)"),
        ("partitions = ", "millstream.toml is no TOML: Invalid value (at end of document)"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(project: Path, line: str, said: str) -> None:
    text = refusal(project, line)
    assert said in text
    assert str(project / "millstream.toml") in text


def test_an_error_of_the_environment_is_not_the_file_s(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLSTREAM_PARTITIONS", "0")
    assert "\n  MILLSTREAM_PARTITIONS: " in refusal(project, "partitions = 5")


@given(st.sampled_from(sorted(set(Settings.model_fields) - {"kafka"})), st.integers(0, 40), st.booleans())
def test_a_setting_with_one_letter_wrong_is_refused_with_the_right_one(name: str, at: int, left_out: bool) -> None:
    from millstream.project_file import nearest

    at %= len(name)
    wrong = name[:at] + ("" if left_out else "q") + name[at + 1 :]
    if wrong not in Settings.model_fields:
        assert nearest(wrong, [*Settings.model_fields]) == f"; did you mean {name}?"


def test_a_child_process_reads_the_same_settings_wherever_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "millstream.toml").write_text('partitions = 8\n[kafka]\n"client.id" = "file"\n')
    monkeypatch.setenv("MILLSTREAM_KAFKA_SECURITY_PROTOCOL", "SSL")
    given = {"redis_url": "redis://:secret@host", "kafka": {"client.id": "mine"}, "state_dir": tmp_path / "state"}
    settings = load_settings(project=tmp_path, **given)
    assert (settings.partitions, settings.kafka["client.id"]) == (8, "mine")
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MILLSTREAM_PROJECT", "")
    monkeypatch.chdir(tmp_path.parent)
    assert load_settings() == settings
