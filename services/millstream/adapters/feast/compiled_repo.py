"""Cache of the compiled feature repo in the state directory: workers start without Feast.

Feast costs a process seconds and a hundred megabytes or two, and all that a worker wants of it is the declaration, and
to know that our codec writes what Feast would. Both stay the same while the repo's files, the environment variables
that they read, the installed packages and our own code do; then what was kept is taken, otherwise the repo is compiled
again. Row-level transforms are kept by value [1]_, as Feast keeps them in its registry.

What definitions take from elsewhere (other files, modules that no installer put there) does not show: `forget`, as
``millstream init`` and ``millstream features apply`` do, has everything compiled again.

References
----------
.. [1] McKerns et al. (2012), "Building a framework for predictive science" (dill).
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import logging
import os
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from millstream.adapters.feast.codec import ViewCodec
from millstream.adapters.feast.environment_reads import environment_reads
from millstream.adapters.feast.repo import load_declaration
from millstream.core.declaration import Declaration, View
from millstream.settings import PREFIX, Settings

logger = logging.getLogger(__name__)

_FILE = "declaration.compiled"
_DIGEST_BYTES = 32
_OURS = (
    "millstream.adapters.feast.compiled_repo",
    "millstream.adapters.feast.declared_columns",
    "millstream.adapters.feast.declared_names",
    "millstream.adapters.feast.codec_check",
    "millstream.adapters.feast.codec",
    "millstream.adapters.feast.config",
    "millstream.adapters.feast.declarations",
    "millstream.adapters.feast.importing",
    "millstream.adapters.feast.parameters",
    "millstream.adapters.feast.service",
    "millstream.adapters.feast.types",
    "millstream.adapters.feast.repo",
    "millstream.adapters.feast.on_demand_transform",
    "millstream.core.declaration",
    "millstream.core.feast_kernel",
)


@dataclass(frozen=True, slots=True)
class CompiledRepo:
    """What a worker needs of Feast.

    Parameters
    ----------
    declaration : Declaration
    alike : tuple of View
        Views whose rows our codec writes byte for byte as the installed Feast does.
    """

    declaration: Declaration
    alike: tuple[View, ...]


def compiled_repo(settings: Settings) -> CompiledRepo:
    """Return what was kept if it still holds, else compile the repo and keep it.

    Raises
    ------
    Misconfigured
        As `millstream.adapters.feast.repo.load_declaration`, or a view has a feature that cannot be written.
    """
    file = settings.state_dir / _FILE
    files = _fingerprint(settings.feature_repo.resolve())
    kept = _kept(file, files, settings)
    if kept is not None:
        return kept
    from millstream.adapters.feast.codec_check import difference

    with environment_reads() as names:
        declaration = load_declaration(settings)
    alike = tuple(
        view
        for view in declaration.views
        if difference(ViewCodec(declaration.project, view), declaration.project) is None
    )
    found = CompiledRepo(declaration, alike)
    _keep(file, files, sorted(names), settings, found)
    return found


def forget(settings: Settings) -> None:
    """Invalidate the compiled repo: its next reader compiles it again."""
    (settings.state_dir / _FILE).unlink(missing_ok=True)


def _kept(file: Path, files: bytes, settings: Settings) -> CompiledRepo | None:
    try:
        content = file.read_bytes()
    except OSError:
        return None  # first start on a machine, or as another user
    digests, body = content[: 2 * _DIGEST_BYTES], content[2 * _DIGEST_BYTES :]
    read, _, body = body.partition(b"\n")
    try:
        names = json.loads(read)
    except ValueError:
        return None
    if digests != _with_environment(files, names, settings) + hashlib.sha256(body).digest():
        return None
    import dill

    found: CompiledRepo = dill.loads(body)
    return found


def _keep(file: Path, files: bytes, names: Collection[str], settings: Settings, compiled: CompiledRepo) -> None:
    import dill

    body = io.BytesIO()
    try:
        dill.dump(compiled, body, recurse=True)
        dill.loads(body.getvalue())  # what refers to a module of the repo cannot be loaded without the repo
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{_FILE}.{os.getpid()}")
        partial.touch(0o600)  # it is run as code when it is read
        digests = _with_environment(files, names, settings) + hashlib.sha256(body.getvalue()).digest()
        partial.write_bytes(digests + json.dumps(names).encode() + b"\n" + body.getvalue())
        partial.replace(file)
    except (dill.PicklingError, TypeError, ImportError, OSError) as error:
        logger.info("the compiled feature repo cannot be kept, every start compiles it: %s", error)


def _with_environment(files: bytes, names: Collection[str], settings: Settings) -> bytes:
    """Return a fingerprint of the files and of these variables, as definitions see them."""
    seen = {**os.environ, f"{PREFIX}STATE_DIR": str(settings.state_dir.resolve())}
    values = {name: seen.get(name) for name in names}
    return hashlib.sha256(files + json.dumps(values, sort_keys=True).encode()).digest()


def _fingerprint(repo: Path) -> bytes:
    found = hashlib.sha256()
    for part in (sys.version, str(repo), *_installed()):
        found.update(part.encode() + b"\0")
    for file in (*_sources(repo), *(Path(str(_origin(name))) for name in _OURS)):
        found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.digest()


def _sources(repo: Path) -> Iterator[Path]:
    for directory, below, names in os.walk(repo):
        below[:] = sorted(name for name in below if not name.startswith((".", "__pycache__")))
        yield from (Path(directory, name) for name in sorted(names) if name.endswith((".py", ".yaml", ".feastignore")))


def _installed() -> list[str]:
    """Return names and versions of the installed packages, as the names of the folders that describe them."""
    folders = (Path(part) for part in sys.path)
    found = (entry.name for folder in folders if folder.is_dir() for entry in folder.iterdir())
    return sorted(name for name in found if name.endswith((".dist-info", ".egg-info")))


def _origin(name: str) -> str | None:
    spec = importlib.util.find_spec(name)
    return spec.origin if spec is not None else None
