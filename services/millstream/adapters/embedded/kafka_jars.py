"""Apache Kafka's jars: pinned by hash in ``kafka_jars.lock``, fetched once by jgo, then read from the user's cache.

``infra/lock_kafka.py`` writes the lock; nothing is resolved at run time.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from millstream.errors import Misconfigured, Retry

LOCK = Path(__file__).with_name("kafka_jars.lock")
_CONNECTIONS = 8
_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Jar:
    """One locked jar: its Maven coordinate ``group:artifact:version`` and content hash."""

    coordinate: str
    sha256: str

    @property
    def file_name(self) -> str:
        """Name of the file in the cache."""
        _group, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


def locked() -> tuple[Jar, ...]:
    """Return the jars of the lock, in classpath order."""
    lines = (line.split() for line in LOCK.read_text().splitlines() if line and not line.startswith("#"))
    return tuple(Jar(coordinate, sha256) for sha256, coordinate in lines)


def kafka_version() -> str:
    """Return the locked broker's version, e.g. ``"4.1.2"``."""
    return next(jar.coordinate.rpartition(":")[2] for jar in locked() if ":kafka_2.13:" in jar.coordinate)


def user_cache() -> Path:
    """Return the directory for this user's caches (XDG on Linux, ~/Library/Caches on macOS), not yet made."""
    chosen = os.environ.get("XDG_CACHE_HOME")
    if chosen:
        return Path(chosen) / "millstream"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "millstream"


def cache_directory(fallback: Path) -> Path:
    """Return the directory of the jars, made if need be: the user's cache, or ``fallback`` where that is read-only.

    Raises
    ------
    Misconfigured
        If neither can be written.
    """
    tried = []
    for root in (user_cache(), fallback):
        directory = root / f"kafka-{kafka_version()}"
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            tried.append(f"{directory}: {error.strerror}")
            continue
        if os.access(directory, os.W_OK):
            return directory
        tried.append(f"{directory}: not writable")
    raise Misconfigured(
        "no directory for Kafka's jars; set XDG_CACHE_HOME to one you can write\n  " + "\n  ".join(tried)
    )


def missing(directory: Path) -> tuple[Jar, ...]:
    """Return the locked jars that are not in ``directory`` with the right content."""
    return tuple(jar for jar in locked() if not _is_intact(directory / jar.file_name, jar.sha256))


def _is_intact(file: Path, sha256: str) -> bool:
    if not file.exists():
        return False
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == sha256


def fetch(directory: Path, on_step: Callable[[str], None]) -> tuple[Path, ...]:
    """Make sure every locked jar is in ``directory``; return the classpath.

    Raises
    ------
    Retry
        Maven Central (or the repositories of jgo's own configuration) cannot be reached, or sent something else.
    """
    lacking = missing(directory)
    if lacking:
        # jgo writes in place; only a finished, verified file may get its final name.
        with tempfile.TemporaryDirectory(dir=directory, prefix=".fetching-") as scratch:
            _download(lacking, directory, Path(scratch), on_step)
    return tuple(directory / jar.file_name for jar in locked())


def _download(jars: Iterable[Jar], directory: Path, scratch: Path, on_step: Callable[[str], None]) -> None:
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    repositories = {"central": MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories}
    maven = MavenContext(repo_cache=scratch, remote_repos=repositories, timeout=_TIMEOUT_S)

    def one(jar: Jar) -> None:
        fetched = Path(maven.create_dependency(jar.coordinate).artifact.resolve())
        if not _is_intact(fetched, jar.sha256):
            raise Retry(f"{jar.coordinate} arrived with another content than the lock names; try again")
        fetched.replace(directory / jar.file_name)

    wanted = list(jars)
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        waiting = [pool.submit(one, jar) for jar in wanted]
        try:
            for count, done in enumerate(as_completed(waiting), start=1):
                done.result()
                on_step(f"fetching Apache Kafka {kafka_version()}: {count} of {len(wanted)} jars")
        except (OSError, RuntimeError) as error:
            raise Retry(
                f"cannot fetch Apache Kafka's jars: {error}. They are needed once, over the network; after that they "
                f"stay in {directory}. Behind a mirror, name it in jgo's configuration (~/.config/jgo.conf, "
                "[repositories]); or use a broker of your own with MILLSTREAM_KAFKA_BOOTSTRAP_SERVERS"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
