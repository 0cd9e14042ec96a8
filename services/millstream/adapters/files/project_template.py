"""Projects to start from: the files of a template, written into an empty folder under the project's name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from millstream.adapters.feast.config import name_problem, suggested_name
from millstream.errors import Misconfigured, Stop

Template = Literal["cards", "blank"]
TEMPLATES: tuple[str, ...] = get_args(Template)

_PACKAGE = Path(__file__).parents[2]
_FOLDER = _PACKAGE / "templates"
_REFERENCE = {"cards": ("feature_repo", "schemas/transactions.avsc")}
"""Files of a template that are the checkout's own; the wheel has them below the template's folder."""
_MADE = frozenset({"__pycache__", ".millstream", ".DS_Store"})
_RENAMED = {"gitignore": ".gitignore"}


def write_project(folder: Path, template: str) -> list[Path]:
    """Write a project of one's own and return its files, relative to the folder.

    Parameters
    ----------
    folder : Path
        Absent or empty; its name is the project's.
    template : str
        One of `TEMPLATES`.

    Raises
    ------
    Misconfigured
        The folder cannot be used: says why, and what to do.
    Stop
        A file cannot be written.
    """
    folder = folder.resolve()
    name = folder.name
    if problem := name_problem(name):
        other = folder.with_name(suggested_name(name))
        raise Misconfigured(f"{folder}: the folder's name {name!r} becomes the project's name; {problem}: {other}")
    try:
        _require_empty(folder)
        written = []
        for source, path in sorted(_files(template), key=lambda each: each[1]):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_named(path, source.read_text(encoding="utf-8"), name), encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise Stop(f"{error.filename or folder} cannot be written: {error.strerror}") from error
    return written


def _require_empty(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise Misconfigured(f"{folder} is a file; name a folder that is empty or not there yet")
    found = sorted(each.name for each in folder.iterdir())
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        held = f"{', '.join(found[:3])}{more}"
        raise Misconfigured(f"{folder} is not empty, it holds {held}; name a folder that is empty or not there yet")


def _files(template: str) -> Iterator[tuple[Path, Path]]:
    """Yield each file and its path in a project."""
    own = _FOLDER / template
    yield from _below(_FOLDER / "shared")
    yield from _below(own)
    for name in _REFERENCE.get(template, ()):
        if (own / name).exists():
            continue
        source = _PACKAGE.parents[1] / name
        if not source.exists():
            raise Misconfigured(f"the template {template} lacks {name}; install Millstream again")
        if source.is_file():
            yield source, Path(name)
        else:
            yield from ((file, Path(name) / path) for file, path in _below(source))


def _below(folder: Path) -> Iterator[tuple[Path, Path]]:
    for file in folder.rglob("*"):
        path = file.relative_to(folder)
        if file.is_file() and _MADE.isdisjoint(path.parts):
            yield file, path.with_name(_RENAMED.get(path.name, path.name))


def _named(path: Path, text: str, name: str) -> str:
    if path.name == "feature_store.yaml":
        from yaml import safe_load

        shown = name if safe_load(name) == name else json.dumps(name)  # 123 or true would be no text
        return re.sub(r"(?m)^project:.*$", f"project: {shown}", text)
    return text.replace("{{project}}", name) if path.suffix == ".md" else text
