"""The lab adds its commands where it is installed, and the engine's command line does without it."""

import tomllib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
import typer
import typer.main

from millstream import cli

ROOT = Path(__file__).parent.parent.parent


def commands() -> set[str]:
    """Paths of all commands, as one types them."""
    app = typer.Typer()
    cli.register_all(app)
    found, todo = set(), [("", typer.main.get_command(app))]
    while todo:
        path, command = todo.pop()
        inner = getattr(command, "commands", None)
        if inner is None:
            found.add(path.strip())
        else:
            todo += [(f"{path} {name}", each) for name, each in inner.items()]
    return found


def test_without_the_lab_its_commands_are_missing_and_all_others_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with_lab = commands()
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][cli.PLUGINS]
    assert {each.name: each.value for each in entry_points(group=cli.PLUGINS)} == declared
    missing = [EntryPoint(name, f"no_such_{value}", cli.PLUGINS) for name, value in declared.items()]
    monkeypatch.setattr(cli, "entry_points", lambda group: missing)
    alone = commands()
    lab = {"bench", "chaos run", "chaos soak", "chaos poison", "drift bench", "simulate"}
    lab |= {f"evaluate {each}" for each in ("book", "prequential", "online")}
    assert with_lab - alone == lab
    assert {"demo", "replay", "train", "drift report"} <= alone


def test_a_plugin_that_adds_to_a_group_that_is_not_there_is_an_error() -> None:
    with pytest.raises(LookupError, match="named drift"):
        cli.group(typer.Typer(), "drift")
