"""Blocks of code and commands of README, the guide and the runbook, and how each is tested.

The words after a block's language declare how `test_guide.py` runs it:

| declaration | how it is run |
|---|---|
| ``sh`` | each ``millstream`` and ``infra/run.py`` command is parsed, nothing runs |
| ``sh run`` | the ``millstream`` commands run in this process, in an empty folder; ``cd`` changes it |
| ``python`` | in memory, in a new project of the template ``cards``; blocks of a page share their names, in order |
| ``python blank`` | the same in the template ``blank`` |
| ``python tests/...`` | by that test, which reads the page |
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "services").rglob("*.py"))
TEMPLATES = ROOT / "services" / "millstream" / "templates"
PAGES = (
    ROOT / "README.md",
    ROOT / "infra" / "runbook.md",
    *sorted((ROOT / "infra" / "docs").glob("*.md")),
    *sorted(TEMPLATES.glob("*/README.md")),
    *sorted((ROOT / "services" / "millstream_lab").glob("*/*.md")),
)
_FENCE = re.compile(r"^(?P<fence>```+)(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_ENDS = {"&&", "||", "|", ";", "&"}
_REDIRECTIONS = {">", ">>", "<"}


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, its language, how it is run, and its text."""

    page: Path
    line: int
    language: str
    how: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        language, _, how = match["info"].strip().partition(" ")
        found.append(Block(page, text.count("\n", 0, match.start()) + 1, language, how.strip(), match["text"]))
    return found


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def inline_code(text: str) -> list[str]:
    """Return what stands between single backticks, with its white space as single spaces."""
    return [" ".join(each.split()) for each in _CODE.findall(text)]


@cache
def nodes(file: Path) -> tuple[ast.AST, ...]:
    """Return the syntax tree of a module, every node."""
    return tuple(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))


def shell_commands(text: str) -> Iterator[list[str]]:
    """Return the simple commands of shell lines as words, without comments and redirections."""
    for line in text.replace("\\\n", " ").splitlines():
        words: list[str] = []
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        for word in lexer:
            if word in _REDIRECTIONS:
                next(lexer)
            elif word in _ENDS:
                if words:
                    yield words
                words = []
            else:
                words.append(word)
        if words:
            yield words
