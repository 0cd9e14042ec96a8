"""What a project's topics are called on the cluster."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import click
import pytest
import typer
from typer.testing import CliRunner

from cards import CONTRACTS, TRANSACTIONS, declaration, topology, view
from millstream.adapters.kafka.cluster import Cluster, inside, named
from millstream.adapters.kafka.topic_names import INTERNAL, PUBLIC, load_topic_names, plain_name
from millstream.app.assembly import Assembly
from millstream.cli import register_all
from millstream.cli.dead_letters import _selection
from millstream.derivation import derive
from millstream.errors import Misconfigured
from millstream.settings import load_settings
from millstream.topology import JOIN_CHANGELOG, LABELS, MEASURES, SCORED
from millstream_lab.bench.stack import Job, Stack
from repos import repo

VIEWS = view("activity", "customer"), view("terminal_activity", "terminal")


def _names(folder: Path, text: str | None, project: str = "flights") -> Cluster:
    where = repo(folder, project=project).feature_repo
    if text is not None:
        (where / "topics.toml").write_text(text)
    found = load_topic_names(where)
    return Cluster({}, found.project, found.names)


def test_the_reference_project_keeps_plain_names_and_a_copy_of_its_repo_does_not(tmp_path: Path) -> None:
    reference = load_settings({}).feature_repo
    assert load_topic_names(reference).names == {}
    assert load_topic_names(reference).internal == ""
    copied = _names(tmp_path, (reference / "topics.toml").read_text(), project="fraud-prod")
    assert named(copied, MEASURES) == "fraud-prod.measures"


def test_internal_topics_carry_the_project_and_public_ones_can_be_declared(tmp_path: Path) -> None:
    plain = _names(tmp_path / "plain", None)
    assert {named(plain, topic) for topic in INTERNAL} == {f"flights.{topic}" for topic in INTERNAL}
    assert [named(plain, topic) for topic in PUBLIC] == list(PUBLIC)
    declared = _names(tmp_path / "declared", 'public = "f-"\ninternal = "i."\n[names]\nlabels = "arrivals"')
    assert [named(declared, topic) for topic in (SCORED, LABELS, JOIN_CHANGELOG, "transactions")] == [
        "f-scored",
        "arrivals",
        "i.join.changelog",
        "transactions",
    ]
    assert {inside(declared, named(declared, topic)) for topic in (*PUBLIC, *INTERNAL)} == {*PUBLIC, *INTERNAL}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("internl = 1", "'internl' is no key"),
        ("internal = 1", "internal = 1; Kafka allows"),
        ('public = "a b"', "public = 'a b'; Kafka allows"),
        ('[names]\nscore = "x"', r"\[names\] has 'score'; topics are: scored"),
        ("names = 3", r"\[names\] has 3"),
        ('[names]\nscored = ""', "scored = ''"),
        ('[names]\nscored = "x"\nlabels = "x"', "two topics are called 'x'"),
        ("public = ", "cannot be read"),
    ],
)
def test_a_wrong_declaration_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(Misconfigured, match=words):
        _names(tmp_path, text)


def test_topics_that_follow_from_the_declaration_carry_the_project_and_schemas_stay() -> None:
    plain = topology(*VIEWS)
    found = derive(declaration(*VIEWS), TRANSACTIONS, CONTRACTS["scored"], CONTRACTS["examples"], "flights.")
    assert [stage.changelog for stage in found.stages] == ["flights.customer.changelog", "flights.terminal.changelog"]
    assert found.stages[0].output == found.stages[1].input == "flights.transactions.terminal"
    assert found.stages[0].input == "transactions"
    assert [stage.output_schema for stage in found.stages] == [stage.output_schema for stage in plain.stages]
    fixed = {topic.name for topic in plain.topics} & {*PUBLIC, *INTERNAL, "transactions"}
    derived = {topic.name for topic in found.topics} - fixed
    assert derived == {
        "flights.customer.changelog", "flights.terminal.changelog", "flights.transactions.terminal",
    }  # fmt: skip


def _program(*modules: str) -> typer.Typer:
    program = typer.Typer()
    program.callback()(lambda: None)
    for name in modules:
        importlib.import_module(f"millstream.cli.{name}").register(program)
    return program


def _renamed(folder: Path) -> Path:
    where = repo(folder, project="flights").feature_repo
    (where / "topics.toml").write_text('public = "f-"\n[names]\nlabels = "arrivals"')
    return where


def test_a_topic_is_named_by_its_plain_name_or_by_the_one_on_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = _renamed(tmp_path)
    settings = load_settings({}, feature_repo=where, state_dir=tmp_path / "state")
    given = {"labels": LABELS, "arrivals": LABELS, "f-scored": SCORED, "scored": SCORED, "unknown": "unknown"}
    assert {name: plain_name(settings, name) for name in given} == given
    monkeypatch.setenv("MILLSTREAM_FEATURE_REPO", str(where))
    monkeypatch.setenv("MILLSTREAM_STATE_DIR", str(tmp_path / "state"))
    assert _selection(None, "arrivals", None, None).topic == LABELS
    shown = CliRunner().invoke(_program("contracts"), ["contracts", "show", "arrivals"])
    assert shown.exit_code == 0, shown.output
    assert "known_at_ms" in shown.output
    (tmp_path / "labels.csv").write_text("event_id,label,known_at_ms\n1,1,1533081600000\n")
    refused = CliRunner().invoke(
        _program("contracts", "ingest"), ["ingest", str(tmp_path / "labels.csv"), "--topic", "arrivals"]
    )
    # Its contract is found; only Kafka is not.
    assert "no Kafka" in str(refused.exception or refused.output), refused.output


def _takes_a_topic(command: click.Command, path: str = "") -> Iterator[str]:
    for name, inner in getattr(command, "commands", {}).items():
        yield from _takes_a_topic(inner, f"{path} {name}".strip())
    yield from (f"{path} {each.name}" for each in command.params if "topic" in str(each.name))


def test_every_command_that_takes_a_topic_is_known() -> None:
    """One that is added must take both names, with `plain_name`."""
    program = typer.Typer()
    register_all(program)
    assert set(_takes_a_topic(cast("click.Command", typer.main.get_command(program)))) == {
        "consume topic",
        "contracts show topic",
        "dead-letters list topic",
        "dead-letters redrive topic",
        "ingest topic",
        "simulate labels_topic",
        "simulate topic",
    }


def test_benches_reach_a_renamed_project_by_its_names(tmp_path: Path) -> None:
    settings = load_settings({}, feature_repo=_renamed(tmp_path), state_dir=tmp_path)
    stack = Stack(tmp_path, {"bootstrap.servers": "x:1"}, "", "exactly_once", 1, print)
    job = Job(stack, settings, cast("Assembly", None), tmp_path)
    assert (named(job.kafka, SCORED), dict(job.kafka)) == ("f-scored", {"bootstrap.servers": "x:1"})
