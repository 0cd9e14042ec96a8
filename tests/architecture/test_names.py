"""Names of modules, paths and tests in docstrings, README and the guide exist, and links lead somewhere."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from guide import PAGES, ROOT, SOURCES, TEMPLATES, inline_code, nodes, prose
from millstream.adapters.telemetry.metric_catalogue import CATALOGUE

NO_MODULES = {"millstream.topics", "millstream.toml", "millstream.commands", "millstream.rescale", "millstream.json"}
"""A topic, a file, a group of entry points, a header of records and a dashboard."""
OF_A_PROJECT = re.compile(r"feature_repo/agents\.py|schemas/(decision-(groups|counts)|events-by-hour|events)\.avsc")
"""Files of a project of one's own that this checkout's project does not have."""
_METRIC = re.compile(r"millstream_(?!lab\b|cards\b)[a-z_]+")
_NAME = re.compile(r"(?<!`)`([A-Za-z_][\w.]*)`(?!`)")
_DOTTED = re.compile(r"millstream(_lab)?(\.[A-Za-z_]\w*)+")
_PATH = re.compile(r"(?P<path>(services|tests|infra|schemas|feature_repo)(/[\w.-]+)+/?)(::(?P<test>\w+))?")
_LINK = re.compile(r"\[[^\]]*\]\((?!https?:)([^)\s]+)\)")


def docstrings(file: Path) -> Iterator[str]:
    """Return the docstrings of a module, and the texts that stand below names as docstrings do."""
    for node in nodes(file):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def codes(file: Path) -> list[str]:
    """Return what stands between backticks in a page, or in the docstrings of a module."""
    if file.suffix == ".md":
        return inline_code(prose(file))
    return [code for text in docstrings(file) for code in inline_code(text.replace("``", "`"))]


def resolves(dotted: str) -> bool:
    """Return whether a dotted name is a module, or something in one."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for name in parts[end:]:
            fields = getattr(found, "__annotations__", {})
            if not hasattr(found, name) and name not in fields:
                return False
            found = getattr(found, name, None)
        return True
    return False


def wrong(file: Path) -> list[str]:
    found = []
    for code in codes(file):
        if _DOTTED.fullmatch(code) and code not in NO_MODULES and not resolves(code):
            found.append(f"`{code}` is no module, nor anything in one")
        if _METRIC.fullmatch(code) and code not in CATALOGUE:
            found.append(f"`{code}` is no metric")
        if (match := _PATH.fullmatch(code)) is not None:
            path, test = ROOT / match["path"], match["test"]
            if not path.exists() and not OF_A_PROJECT.fullmatch(code):
                found.append(f"`{code}` does not exist")
            elif test is not None and f"def {test}(" not in path.read_text(encoding="utf-8"):
                found.append(f"`{code}`: no such test")
    return found


def test_modules_and_paths_named_in_docstrings_exist() -> None:
    assert {str(file.relative_to(ROOT)): each for file in SOURCES if (each := wrong(file))} == {}


def identifiers(file: Path) -> Iterator[str]:
    """Return the names and short texts that the code of a module uses or defines."""
    yield from (file.stem, file.parent.name)
    for node in nodes(file):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                yield from name.split(".")
            case ast.Constant(value=str() as text):
                yield text
            case _:
                pass


def test_names_in_docstrings_are_names_of_the_code() -> None:
    known = {name for file in SOURCES for name in identifiers(file)}
    unknown = {
        f"{file.relative_to(ROOT)}: `{code}`"
        for file in SOURCES
        for text in docstrings(file)
        for code in _NAME.findall(text)
        if not code.startswith(("feast.", "with_join_key_map"))
        and code not in known
        and not known.issuperset(code.split("."))
    }
    assert unknown == set()


@pytest.mark.parametrize("page", [page for page in PAGES if TEMPLATES not in page.parents], ids=lambda page: page.name)
def test_modules_paths_and_links_of_a_page_exist(page: Path) -> None:
    found = wrong(page)
    for link in _LINK.findall(prose(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            found.append(f"link to {link}")
        elif anchor and anchor not in anchors(target):
            found.append(f"link to {link}: no such heading; there are {', '.join(sorted(anchors(target)))}")
    assert found == []


def anchors(page: Path) -> set[str]:
    """Return the anchors that a page's headings have."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_files_of_the_code_map_exist() -> None:
    page = ROOT / "infra" / "docs" / "code-map.md"
    named = {code for code in inline_code(prose(page)) if code.endswith(".py") and not code.startswith("tests/")}
    assert len(named) > 50
    assert {name for name in named if not (ROOT / "services" / "millstream" / name).is_file()} == set()


def test_what_does_not_exist_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("`millstream.core.windows.state` `millstream.core.window_state` `tests/none.py` `tests/guide.py`")
    assert wrong(page) == [
        "`millstream.core.window_state` is no module, nor anything in one",
        "`tests/none.py` does not exist",
    ]
