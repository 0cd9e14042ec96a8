"""Every command and every block of code in README, the guide and the runbook works; `guide` has the declarations."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
from typer.exceptions import TyperException
from typer.testing import CliRunner

from guide import PAGES, ROOT, SOURCES, Block, blocks, inline_code, nodes, prose, shell_commands
from millstream import cli
from millstream.adapters.files.project_template import write_project

BLOCKS = [block for page in PAGES for block in blocks(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
IN_MEMORY = {"": "cards", "blank": "blank"}
SETUP_COMMANDS = {"setup", "test", "lock", "docs", "wheel"}
_PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*").fullmatch
OTHER_PROGRAMS = {"cd", "pip", "python", "python3", "kafka-configs.sh", "docker", "unshare", "alias", "export"}


@pytest.fixture(scope="module")
def command_line() -> Any:
    app = typer.Typer()
    cli.register_all(app)
    return typer.main.get_command(app)


def problem(root: Any, words: Sequence[str], *, whole: bool) -> str | None:
    """Return what is wrong with a ``millstream`` command, None if nothing is.

    Capitals stand for values of any type. Parts of commands, as in prose, may lack arguments.
    """
    command, rest = root, list(words)
    while rest and not rest[0].startswith("-") and (commands := getattr(command, "commands", None)) is not None:
        if rest[0] not in commands:
            return f"no command {rest[0]!r}; there are {', '.join(commands)}"
        command, rest = commands[rest[0]], rest[1:]
    try:
        command.make_context("millstream", rest)
    except TyperException as error:
        kind, text = type(error).__name__, str(error)
        if kind == "NoArgsIsHelpError" or (kind == "MissingParameter" and not whole):
            return None
        if kind == "BadParameter":
            if any(map(_PLACEHOLDER, words)):
                return problem(root, ["1" if _PLACEHOLDER(word) else word for word in words], whole=whole)
            if "does not exist" in text:
                return None  # of the file named; options were parsed before
        return f"{kind}: {text}"
    return None


def millstream_words(text: str) -> Iterator[list[str]]:
    for words in shell_commands(text):
        if words[0].endswith("millstream"):
            yield words[1:]
        elif words[:2] == ["python3", "infra/run.py"] and words[2:3] and words[2] not in SETUP_COMMANDS:
            yield words[2:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_parses(page: Path, command_line: Any, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = []
    for block in blocks(page):
        if block.language not in {"sh", ""}:
            continue
        for words in shell_commands(block.text) if block.language == "sh" else ():
            if not words[0].endswith("millstream") and words[0] not in OTHER_PROGRAMS:
                wrong.append(f"{block}: {words[0]} is no program that the guide uses")
        for words in millstream_words(block.text):
            found = problem(command_line, words, whole=True)
            wrong += [f"{block}: millstream {' '.join(words)}: {found}"] if found else []
    for code in inline_code(prose(page)):
        if re.match(r"(millstream [a-z-]|python3 infra/run.py )", code):
            for words in millstream_words(code.removesuffix("...")):
                found = problem(command_line, words, whole=False)
                wrong += [f"{page.name}: `{code}`: {found}"] if found else []
    assert wrong == []


def test_every_command_named_in_a_message_or_docstring_parses(
    command_line: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = []
    for file in SOURCES:
        for node in nodes(file):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "`millstream " in node.value:
                for code in inline_code(node.value.replace("``", "`")):
                    for words in millstream_words(code) if re.match(r"millstream [a-z-]+\b", code) else ():
                        found = problem(command_line, words, whole=False)
                        wrong += [f"{file.relative_to(ROOT)}:{node.lineno}: `{code}`: {found}"] if found else []
    assert wrong == []


def test_a_command_that_is_wrong_is_found(command_line: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["qualty"], ["quality", "--maturty", "3"], ["topics", "rescale", "many"], ["down", "now"]):
        assert problem(command_line, words, whole=True), words
    assert problem(command_line, ["replay", "FILE"], whole=True)
    assert problem(command_line, ["replay", "FILE"], whole=False) is None
    assert problem(command_line, ["topics", "rescale", "N"], whole=True) is None


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("guide")
    for template in IN_MEMORY.values():
        write_project(folder / template, template)
    return {template: folder / template for template in IN_MEMORY.values()}


@pytest.mark.parametrize(
    ("page", "how"), sorted({(block.page, block.how) for block in PYTHON if block.how in IN_MEMORY}), ids=str
)
def test_python_of_a_page_runs(
    page: Path, how: str, projects: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(projects[IN_MEMORY[how]])
    names: dict[str, Any] = {"__name__": "guide"}
    for block in PYTHON:
        if (block.page, block.how) == (page, how):
            exec(compile("\n" * block.line + block.text, str(page), "exec"), names)


def test_other_python_is_run_by_the_test_that_it_names() -> None:
    others = [block for block in PYTHON if block.how not in IN_MEMORY]
    for block in others:
        assert (ROOT / block.how).is_file(), f"{block}: {block.how} is no declaration of `guide`"
        assert block.page.name in (ROOT / block.how).read_text(encoding="utf-8"), block


@pytest.mark.parametrize("block", [b for b in BLOCKS if (b.language, b.how) == ("sh", "run")], ids=str)
def test_a_shell_block_runs_in_an_empty_folder(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for program, *words in shell_commands(block.text):
        if program == "cd":
            monkeypatch.chdir(*words)
            continue
        assert program == "millstream", f"{block}: {program} cannot run here"
        done = CliRunner().invoke(cli.program(), words)
        assert done.exit_code == 0, f"{block}: {words}: {done.output}"


def test_run_py_has_the_commands_that_pages_name() -> None:
    script = (ROOT / "infra" / "run.py").read_text(encoding="utf-8")
    for name in SETUP_COMMANDS:
        assert f"infra/run.py {name}" in script
    for page in PAGES:
        texts = [*inline_code(prose(page)), *(block.text for block in blocks(page))]
        for text in texts:
            for words in shell_commands(text) if "infra/run.py test " in text else ():
                for path in words[3:]:
                    assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_every_block_is_declared() -> None:
    known = {"sh": {"", "run"}, "python": None, "json": {""}, "toml": {""}, "mermaid": {""}, "": {""}}
    for block in BLOCKS:
        assert block.language in known, f"{block}: no rule for {block.language}"
        allowed = known[block.language]
        assert allowed is None or block.how in allowed, f"{block}: {block.how}"
        if block.language in {"json", "toml"}:
            (json if block.language == "json" else tomllib).loads(block.text)
