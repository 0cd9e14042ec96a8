"""The project's folder, found upwards from the working directory, and the settings in its ``millstream.toml``.

Settings that hold a secret are refused in the file, which is shared with everybody who has the project.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from millstream.core import urls
from millstream.errors import Misconfigured

FILE = "millstream.toml"
FOLDER_VARIABLE = "MILLSTREAM_PROJECT"
"""Names the project's folder instead of the search; empty: there is none."""
_REPO = Path("feature_repo", "feature_store.yaml")
_KAFKA = "kafka"
_SECRET_NAME = re.compile(r"pass|secret|token|private|credential|user\.info|key\.pem|oauthbearer\.config|jaas")
_NO_SECRET = re.compile(r"\.(url|file|location|ms)$")

Kind = Literal["value", "path", "secret"]


@dataclass(frozen=True, slots=True)
class Project:
    """A project's folder and what its file sets.

    Parameters
    ----------
    folder : Path or None
        None where there is no project.
    settings : mapping
        Of `Settings` by name, as in the file; paths are relative to the working directory, or absolute.
    kafka : mapping
        librdkafka settings.
    """

    folder: Path | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    kafka: Mapping[str, str] = field(default_factory=dict)


def find_folder(start: Path | None = None) -> Path | None:
    """Return the nearest folder, from the working directory upwards, that is a project's; None if none is.

    A project's folder holds ``millstream.toml`` or ``feature_repo/feature_store.yaml``.

    Parameters
    ----------
    start : Path, optional
        Search from there instead; `FOLDER_VARIABLE` is not looked at.

    Raises
    ------
    Misconfigured
        The variable names a folder that is no project's.
    """
    if start is None:
        named = os.environ.get(FOLDER_VARIABLE)
        if named is not None:
            return _named(named) if named else None
        try:
            start = Path.cwd()
        except FileNotFoundError:  # it was deleted
            return None
    start = start.resolve()
    return next((folder for folder in (start, *start.parents) if _is_project(folder)), None)


def _named(text: str) -> Path:
    folder = Path(text).resolve()
    if not _is_project(folder):
        raise Misconfigured(
            f"{FOLDER_VARIABLE} is {text}, which holds neither {FILE} nor {_REPO}; name the folder of a project, or "
            "unset it, and the folder is searched from the working directory upwards"
        )
    return folder


def _is_project(folder: Path) -> bool:
    # os.path's answer is no for what may not be read; pathlib's is an error.
    return os.path.isfile(folder / FILE) or os.path.isfile(folder / _REPO)  # noqa: PTH113


def open_project(kinds: Mapping[str, Kind], defaults: Mapping[str, Path], start: Path | None = None) -> Project:
    """Find the project and read its file.

    Parameters
    ----------
    kinds : mapping
        Every setting by name, and what it holds.
    defaults : mapping
        Paths below the folder that are used where the file does not set them.

    Raises
    ------
    Misconfigured
        Naming the file, the key that is wrong, what is allowed and what to do.
    """
    folder = find_folder(start)
    if folder is None:
        return Project()
    file = folder / FILE
    content = _content(file)
    kafka = content.pop(_KAFKA, {})
    if not isinstance(kafka, dict):
        raise Misconfigured(f"{file}: {_KAFKA} is a table of librdkafka settings; write [{_KAFKA}] above them")
    options = dict(_options(kafka))
    wrong = [text for key, value in content.items() if (text := _problem(key, value, kinds))]
    wrong += [text for name, value in options.items() if (text := _kafka_problem(name, value))]
    if wrong:
        raise Misconfigured(f"{file} is wrong:\n  " + "\n  ".join(wrong))
    paths = {**defaults, **{key: value for key, value in content.items() if kinds[key] == "path"}}
    anchored = {key: _anchored(folder, value) for key, value in paths.items()}
    return Project(folder, {**content, **anchored}, {name: _text(value) for name, value in options.items()})


def _content(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{file} is no TOML: {error}") from error
    except OSError as error:
        raise Misconfigured(f"{file} cannot be read: {error.strerror}") from error


def _anchored(folder: Path, value: object) -> object:
    """Return a path below the folder; as it is where that is the working directory, since it is shown."""
    if not isinstance(value, str | Path) or folder == Path.cwd():
        return value
    return folder / value


def _options(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield librdkafka settings of a table, in which TOML takes dotted keys without quotes for tables."""
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _options(value, f"{name}.")
        else:
            yield name.lower().replace("_", "."), value


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _variable(key: str) -> str:
    return f"MILLSTREAM_{key.upper().replace('.', '_')}"


def _problem(key: str, value: object, kinds: Mapping[str, Kind]) -> str | None:
    if key not in kinds:
        return f"{key}: there is no such setting{nearest(key, [*kinds, _KAFKA])}"
    if kinds[key] == "secret" or (isinstance(value, str) and urls.passwords(value)):
        what = "is a secret" if kinds[key] == "secret" else "holds a password"
        return _secret(key, what, _variable(key))
    return None


def _kafka_problem(name: str, value: object) -> str | None:
    if isinstance(value, str) and urls.passwords(value):
        return _secret(f"{_KAFKA}, {name}", "holds a password", _variable(f"{_KAFKA}.{name}"))
    if _SECRET_NAME.search(name) and not _NO_SECRET.search(name):
        return _secret(f"{_KAFKA}, {name}", "is a secret", _variable(f"{_KAFKA}.{name}"))
    if not isinstance(value, str | int | float):
        return f"{_KAFKA}, {name}: it is a {type(value).__name__}; write a string, a number, true or false"
    return None


def _secret(where: str, what: str, variable: str) -> str:
    return f"{where}: it {what}, which this file must not hold; remove it here and set {variable} in the environment"


def nearest(key: str, known: list[str]) -> str:
    """Return what to say of a setting that there is not: the one that was probably meant, else all there are."""
    plain = key.lower().removeprefix("millstream_").replace("-", "_")
    found = difflib.get_close_matches(plain, known, 1, 0.5)
    return f"; did you mean {found[0]}?" if found else f"; the settings are {', '.join(sorted(known))}"
