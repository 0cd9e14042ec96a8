"""The lab adds its commands where it is installed, and the engine's command line does without it."""

import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

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


def test_the_list_of_commands_has_the_first_sentence_of_each_one_s_help() -> None:
    app = typer.Typer()
    cli.register_all(app)
    real: Any = typer.main.get_command(app)
    summaries = {name: command.get_short_help_str(limit=1000) for name, command in real.commands.items()}
    assert {name: listed.summary for name, listed in cli.all_commands().items()} == summaries


def test_listing_the_commands_imports_none_of_them() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from millstream.cli import program\n"
        "assert CliRunner().invoke(program(), ['--help']).exit_code == 0\n"
        "print([name for name in ('numpy', 'pydantic', 'confluent_kafka') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_plugin_that_adds_to_a_group_that_is_not_there_is_an_error() -> None:
    with pytest.raises(LookupError, match="named drift"):
        cli.group(typer.Typer(), "drift")
