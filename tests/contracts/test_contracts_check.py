"""``millstream contracts`` on a git repository of its own, and on this one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from millstream.cli import contracts

RUNNER = CliRunner()
EVENT: dict[str, Any] = {
    "type": "record",
    "name": "Event",
    "fields": [{"name": "id", "type": "long"}, {"name": "amount", "type": "double", "maximum": 10}],
}
HERE = Path(__file__).parents[2]


class Repo:
    """A git repository with contracts in a folder below its root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "deep" / "schemas"
        self.folder.mkdir(parents=True)
        self.git("init", "--quiet")

    def git(self, *arguments: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(self.root), *identity, *arguments], check=True, capture_output=True)

    def write(self, topic: str, spec: dict[str, Any]) -> None:
        (self.folder / f"{topic}.avsc").write_text(json.dumps(spec))

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "x")


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    repo = Repo(tmp_path)
    monkeypatch.setenv("MILLSTREAM_SCHEMAS_DIR", str(repo.folder))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    repo.write("events", EVENT)
    repo.write("old-events", EVENT)
    repo.commit()
    return repo


def with_fields(*more: dict[str, Any], amount: dict[str, Any] | None = None, **attributes: Any) -> dict[str, Any]:
    return {**EVENT, **attributes, "fields": [EVENT["fields"][0], amount or EVENT["fields"][1], *more]}


def run(*arguments: str) -> tuple[int, Any]:
    app = typer.Typer()
    contracts.register(app)
    result = RUNNER.invoke(app, ["contracts", *arguments, "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, json.loads(result.stdout)


def test_widening_passes_and_tightening_or_removing_is_refused_by_rule(repo: Repo) -> None:
    repo.write("events", with_fields({"name": "note", "type": "string", "default": ""}))
    assert run("check") == (0, [])

    repo.write("events", with_fields({"name": "note", "type": "string"}, amount={"name": "amount", "type": "float"}))
    (repo.folder / "old-events.avsc").unlink()
    code, findings = run("check")
    assert code == 1
    assert {(f["topic"], f["rule"], f["field"]) for f in findings} == {
        ("old-events", "removed", ""),
        ("events", "missing-default", "note"),
        ("events", "type", "amount"),
    }

    repo.write("old-events", with_fields(amount={"name": "amount", "type": "double", "maximum": 9}))
    repo.write("events", EVENT)
    code, findings = run("check")
    assert [(f["topic"], f["rule"]) for f in findings] == [("old-events", "range")]


def test_transitive_looks_past_the_last_version_and_a_generation_draws_the_line(repo: Repo) -> None:
    field = {"name": "late", "type": "long", "default": 0}
    repo.write("events", with_fields(field))
    repo.commit()
    repo.write("events", with_fields({"name": "late", "type": "long"}))
    assert run("check", "--mode", "BACKWARD") == (0, [])
    code, findings = run("check")
    assert (code, [f["rule"] for f in findings]) == (1, ["missing-default"])
    assert run("check", "--against", "HEAD~1", "--mode", "BACKWARD")[0] == 1
    repo.write("events", with_fields({"name": "late", "type": "long"}, millstream={"generation": 2}))
    assert run("check") == (0, [])


def test_a_version_that_is_no_contract_is_reported(repo: Repo) -> None:
    repo.write("events", {"type": "record", "name": "Event", "fields": [{"name": "x", "type": "map"}]})
    repo.commit()
    repo.write("events", EVENT)
    code, findings = run("check")
    assert (code, [f["rule"] for f in findings]) == (1, ["unreadable"])


def run_for_people(*arguments: str) -> tuple[int, str]:
    """Run as the command line does, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", "from millstream.cli import main; main()", "contracts", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["check", "--against", "nowhere"], 78, "git has no commit 'nowhere'"),
        (["check", "--mode", "SIDEWAYS"], 2, "BACKWARD_TRANSITIVE"),
        (["show", "nothing"], 78, "events, examples, labels, models, old-events"),
        (["show", "events"], 0, "maximum 10"),
        (["list"], 0, "old-events"),
    ],
)
def test_people_are_told_what_to_do(repo: Repo, arguments: list[str], code: int, told: str) -> None:
    found, text = run_for_people(*arguments)
    assert (found, told in text) == (code, True), text


def test_outside_git_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "events.avsc").write_text(json.dumps(EVENT))
    monkeypatch.setenv("MILLSTREAM_SCHEMAS_DIR", str(tmp_path))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    code, text = run_for_people("check")
    assert (code, "is in no git repository" in text) == (78, True), text


def test_this_repository_breaks_none_of_its_own_contracts(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (HERE / ".git").exists():
        pytest.skip("not a git checkout")
    monkeypatch.setenv("MILLSTREAM_SCHEMAS_DIR", str(HERE / "schemas"))
    assert run("check") == (0, [])
