"""What a project's topics are called on the cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from cards import CONTRACTS, TRANSACTIONS, declaration, topology, view
from repos import repo

from services.adapters.cluster import Cluster, inside, named
from services.adapters.topic_names import INTERNAL, PUBLIC, load_topic_names
from services.errors import Misconfigured
from services.settings import load_settings
from services.topology import JOIN_CHANGELOG, LABELS, MEASURES, SCORED, derive

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
