"""`millstream new`: what is written, and where it is refused."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from millstream.adapters.feast.config import check_project, name_problem
from millstream.adapters.files.contracts import load_contract
from millstream.adapters.files.project_template import TEMPLATES, write_project
from millstream.cli import program
from millstream.cli.demo.history import require_payments
from millstream.errors import Misconfigured, Stop
from millstream.settings import load_settings

ROOT = Path(__file__).parents[2]
TOPICS = {"cards": "transactions", "blank": "events"}


def project_name(folder: Path) -> object:
    """Return the project's name as YAML has it, if a project can have it."""
    file = folder / "feature_repo" / "feature_store.yaml"
    check_project(file)
    return yaml.safe_load(file.read_text())["project"]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_project_has_its_own_name_contract_and_features(template: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine_2"
    written = write_project(folder, template)
    assert sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file()) == sorted(written)
    settings = load_settings(project=folder)
    assert settings.feature_repo == folder.resolve() / "feature_repo"
    assert project_name(folder) == "mine_2"
    assert load_contract(settings, TOPICS[template]).event_time == "event_time_ms"
    assert tomllib.loads((folder / "millstream.toml").read_text())["schemas_dir"] == "schemas"
    readme = (folder / "README.md").read_text().splitlines()
    assert readme[0] == "# mine_2"
    assert len(readme) <= 24
    for path in written:
        if path.suffix in {".avsc", ".csv"} or path.name in {"definitions.py", "test_project.py"}:
            assert f"`{path}`" in "\n".join(readme)


def test_the_template_cards_is_the_reference_repo(tmp_path: Path) -> None:
    folder = tmp_path / "cards"
    write_project(folder, "cards")
    for name in ("feature_repo/definitions.py", "feature_repo/.feastignore", "schemas/transactions.avsc"):
        assert (folder / name).read_bytes() == (ROOT / name).read_bytes()


@pytest.mark.parametrize("name", ["123", "true", "no", "1e5", "0x1F", "null"])
def test_a_name_that_yaml_takes_for_something_else_is_quoted(name: str, tmp_path: Path) -> None:
    write_project(tmp_path / name, "blank")
    assert project_name(tmp_path / name) == name


@pytest.mark.parametrize(
    ("name", "suggested"),
    [("my-plant", "my_plant"), ("_x", "x"), ("my plant", "my_plant"), ("é", "project"), ("a.b", "a_b")],
)
def test_a_name_that_no_project_can_have_is_refused_with_one_that_it_can(
    name: str, suggested: str, tmp_path: Path
) -> None:
    with pytest.raises(Misconfigured) as caught:
        write_project(tmp_path / name, "blank")
    assert str(caught.value).endswith(str(tmp_path.resolve() / suggested))
    assert name_problem(suggested) is None
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_empty_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("a", "b", "c", "d"):
        (folder / name).touch()
    with pytest.raises(Misconfigured, match=r"mine is not empty, it holds a, b, c and 1 more; name a folder"):
        write_project(folder, "blank")
    assert len(list(folder.iterdir())) == 4
    with pytest.raises(Misconfigured, match=r"a is a file; name a folder"):
        write_project(folder / "a", "blank")
    with pytest.raises(Stop, match="cannot be written"):
        write_project(folder / "a" / "sub", "blank")


def test_the_command_shows_what_to_do_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = program()
    shown = CliRunner().invoke(app, ["new", "mine"])
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[-4:] == [
        "  cd mine",
        "  millstream features show",
        "  millstream replay transactions.csv --out out",
        "  python -m pytest",
    ]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir("here")
    assert "  cd " not in CliRunner().invoke(app, ["new", "."]).stdout
    refused = CliRunner().invoke(app, ["new", "x", "--template", "trees"])
    assert refused.exit_code == 2
    assert all(name in refused.output for name in TEMPLATES)


def test_the_demo_is_refused_where_events_are_no_payments(tmp_path: Path) -> None:
    for template, topic in TOPICS.items():
        write_project(tmp_path / template, template)
        contract = load_contract(load_settings(project=tmp_path / template), topic)
        if template == "cards":
            require_payments(topic, contract)
            continue
        with pytest.raises(Misconfigured, match=r"topic events lacks amount, .* has value; run it in a project that"):
            require_payments(topic, contract)
