"""Earlier versions of the contracts, as git has them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from millstream.adapters.files.contracts import SUFFIX
from millstream.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class Version:
    """One committed version of a contract: short commit id, topic and Avro JSON."""

    commit: str
    topic: str
    text: str


def versions_at(folder: Path, revision: str) -> list[Version]:
    """Return every contract of a folder as it was at a git revision, by topic.

    Raises
    ------
    Misconfigured
        If the folder is in no git repository, or there is no such revision.
    """
    commit = _commit(folder, revision)
    return [
        Version(commit[:10], Path(name).stem, _git(folder, "cat-file", "blob", f"{commit}:./{name}"))
        for name in _git(folder, "ls-tree", "--name-only", commit, "./").splitlines()
        if name.endswith(SUFFIX)
    ]


def all_versions(folder: Path, revision: str) -> list[Version]:
    """Return every distinct version reachable from a git revision, newest first; raises as `versions_at` does."""
    commit = _commit(folder, revision)
    found: dict[tuple[str, str], Version] = {}
    for line in _git(folder, "log", "--format=%H", commit, "--", ".").split():
        for version in versions_at(folder, line):
            found.setdefault((version.topic, version.text), version)
    return list(found.values())


def _commit(folder: Path, revision: str) -> str:
    try:
        inside = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "--is-inside-work-tree"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise Misconfigured("git is not installed; contracts are compared with earlier versions in git") from error
    if inside.returncode != 0:
        raise Misconfigured(
            f"{folder.resolve()} is in no git repository, so there is no earlier version to compare with; "
            f"commit the contracts to git, or use `millstream contracts list` to only read them"
        )
    found = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode != 0:
        raise Misconfigured(f"git has no commit {revision!r} here; give a branch, tag or commit id with --against")
    return found.stdout.strip()


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False, encoding="utf-8"
    )
    if done.returncode != 0:
        raise Misconfigured(f"git {' '.join(arguments)} failed in {folder}: {done.stderr.strip()}")
    return done.stdout
