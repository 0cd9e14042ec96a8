"""The Python API's entry: a project is a feature repo with its contracts and settings, compiled or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from millstream.app.project.live import LiveProject
from millstream.app.project.offline import Replay
from millstream.errors import Misconfigured
from millstream.project_file import find_folder
from millstream.settings import load_settings

__all__ = ["Project", "Replay", "open"]


class Project(LiveProject):
    """A feature repo with its contracts and settings; made by `millstream.open`.

    Attributes
    ----------
    settings : Settings
    assembly : Assembly
        The declaration, contracts and stages that the repo amounts to.
    """


def open(folder: Path | str | None = None, **settings: Any) -> Project:
    """Open the project of a folder.

    Parameters
    ----------
    folder : path, optional
        Of the project; default: found from the working directory, as the command line does.
    **settings
        Settings by name in lower case, such as ``late_policy="drop"``; they win over the environment. ``kafka`` is a
        mapping of librdkafka settings.

    Returns
    -------
    Project

    Raises
    ------
    Misconfigured
        The settings, contracts or feature repo are wrong; names the key and what to do.
    """
    start = None if folder is None else Path(folder)
    if start is not None and find_folder(start) is None:
        raise Misconfigured(
            f"{folder} is no project: neither it nor a folder above it holds millstream.toml or "
            "feature_repo/feature_store.yaml; `millstream new DIR` writes one"
        )
    return Project(load_settings(project=start, **settings))
