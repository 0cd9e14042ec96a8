"""``feature_store.yaml``: its keys as the engine reads them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from millstream.adapters.feast.importing import import_feast
from millstream.adapters.feast.parameters import Parameter
from millstream.errors import Misconfigured
from millstream.settings import Settings

if TYPE_CHECKING:
    from feast.repo_config import RepoConfig

logger = logging.getLogger(__name__)

_FILE = "feature_store.yaml"
_STORE = "millstream.adapters.feast.online_store.MillstreamRedisOnlineStore"
_FORMER = {  # until the package had the project's name
    "services.adapters.online_store.": "millstream.adapters.feast.online_store.",
    "services.adapters.compute_engine.": "millstream.adapters.feast.compute_engine.",
}
_FIELD = re.compile(r"Field\( name='([^']*)', dtype=<PrimitiveFeastType\.(\w+): \d+>.*?vector_search_metric=\S+ \)")
_FEASTS_OWN = Parameter("no effect", "used by Feast's own commands and clients only")


def _versioned(config: Any) -> bool:
    return bool(config.registry.enable_online_feature_view_versioning)


def _elsewhere(config: Any) -> bool:
    from feast.infra.online_stores.redis import RedisOnlineStoreConfig

    return config.online_store is not None and not isinstance(config.online_store, RedisOnlineStoreConfig)


_SHOWN = {"registry_config": "registry", "online_config": "online_store"}

KEYS: Mapping[str, Parameter] = {
    "project": Parameter("honoured", "part of every online key, and the namespace of the engine's own schemas"),
    "project_description": _FEASTS_OWN,
    "provider": _FEASTS_OWN,
    "registry_config": Parameter(
        "honoured",
        "`registry`: an SQLite file under a relative path is kept in the state directory; "
        "`enable_online_feature_view_versioning` is refused",
        _versioned,
        "with enable_online_feature_view_versioning online rows are kept under names that the engine does not write; "
        "leave it out",
    ),
    "online_config": Parameter(
        "honoured",
        f"`online_store`: {_STORE} or redis; others are refused",
        _elsewhere,
        f"the engine writes Redis rows; use {_STORE} or redis",
    ),
    "offline_config": Parameter("no effect", "`offline_store`: used by Feast's point-in-time joins, so by `parity`"),
    "batch_engine_config": Parameter("no effect", "`batch_engine`: used by Feast's materialisation"),
    "auth": _FEASTS_OWN,
    "feature_server": _FEASTS_OWN,
    "embedding_model": _FEASTS_OWN,
    "flags": _FEASTS_OWN,
    "repo_path": Parameter("no effect", "set by Feast"),
    "entity_key_serialization_version": Parameter(
        "refused",
        "online keys are those of version 3; leave it out or set 3",
        lambda config: config.entity_key_serialization_version != 3,
    ),
    "coerce_tz_aware": _FEASTS_OWN,
    "materialization_config": _FEASTS_OWN,
    "openlineage_config": _FEASTS_OWN,
    "mlflow_config": _FEASTS_OWN,
    "data_quality_monitoring_config": _FEASTS_OWN,
}

ONLINE_STORE_KEYS: Mapping[str, Parameter] = {
    "type": Parameter("honoured", "as `online_store` above"),
    "redis_type": Parameter("honoured", "redis and redis_sentinel for Feast's clients; redis_cluster is refused"),
    "client": _FEASTS_OWN,
    "sentinel_master": _FEASTS_OWN,
    "connection_string": Parameter("no effect", "for Feast's clients; the stages write to MILLSTREAM_REDIS_URL"),
    "key_ttl_seconds": Parameter(
        "refused",
        "the first row that Feast writes would let the engine's rows of that key expire; leave it out",
        lambda config: getattr(config.online_store, "key_ttl_seconds", None),
    ),
    "full_scan_for_deletion": _FEASTS_OWN,
    "skip_dedup": Parameter("honoured", "True is refused: older rows would replace newer ones"),
    "url": Parameter("no effect", "for Feast's clients; the stages write to MILLSTREAM_REDIS_URL"),
    "state_dir": Parameter("no effect", "for Feast's clients: where the embedded server is"),
    "honour_ttl": Parameter("honoured", "Feast's clients read rows older than their view's ttl as absent"),
    "absent_is_not_found": Parameter("honoured", "Feast's clients read what was never written as NOT_FOUND"),
    "most_seconds_ahead": Parameter("honoured", "Feast's writes of rows that far in the future are refused"),
}


def repo_folder(settings: Settings) -> Path:
    """Return the folder of the Feast repo.

    Raises
    ------
    Misconfigured
        It holds no ``feature_store.yaml``.
    """
    repo = settings.feature_repo.resolve()
    if not (repo / _FILE).is_file():
        raise Misconfigured(
            f"{repo} holds no {_FILE}; run this in a project's folder or below (`millstream new DIR` writes one), or "
            "point MILLSTREAM_FEATURE_REPO at the Feast repo"
        )
    return repo


def load_config(settings: Settings) -> RepoConfig:
    """Return the repo's ``feature_store.yaml`` as Feast reads it, with variables of the environment put in.

    Raises
    ------
    Misconfigured
        Naming the file and the key that is wrong or not supported.
    """
    import_feast()
    from feast.repo_config import load_repo_config
    from yaml import YAMLError

    repo = repo_folder(settings)
    file = repo / _FILE
    try:
        check_project(file)
    except (YAMLError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{file}: {one_line(error)}") from error
    try:
        with _renamed(file) as readable:
            config = load_repo_config(repo, readable)
        _ = config.online_store, config.registry, config.offline_store, config.batch_engine  # made when they are read
    except Exception as error:  # of YAML, pydantic, Feast, or an import of a class it names: the file is at fault
        raise Misconfigured(f"{file}: {one_line(error)}") from error
    if not hasattr(config.registry, "registry_type"):
        raise Misconfigured(f"{file}, registry: it is neither a path nor a table of keys")
    for name, key in (*KEYS.items(), *ONLINE_STORE_KEYS.items()):
        if key.given is not None and key.given(config):
            shown = _SHOWN.get(name, name)
            raise Misconfigured(f"{file}, {shown}: {key.refusal or key.note}")
    return config


@contextmanager
def _renamed(file: Path) -> Iterator[Path]:
    """Yield the file, or a copy in which former paths of the classes that it names are replaced by today's."""
    text = file.read_text(encoding="utf-8")
    former = [each for each in _FORMER if each in text]
    if not former:
        yield file
        return
    for each in former:
        _warn_of_rename(file, each)
        text = text.replace(each, _FORMER[each])
    with TemporaryDirectory() as folder:
        copy = Path(folder) / file.name
        copy.write_text(text, encoding="utf-8")
        yield copy


@cache
def _warn_of_rename(file: Path, former: str) -> None:
    logger.warning("%s: %s* is deprecated; write %s*", file, former, _FORMER[former])


def check_project(file: Path) -> None:
    """Refuse a project's name that cannot be the namespace of Avro records.

    Feast allows hyphens in names of projects, but refuses them in this file whatever the online store, naming SQLite.
    """
    from yaml import safe_load

    content = safe_load(os.path.expandvars(file.read_text(encoding="utf-8")))
    name = content.get("project") if isinstance(content, dict) else None
    if problem := name_problem(name):
        raise Misconfigured(f"{file}: project is {name!r}; {problem}")


def name_problem(name: object) -> str | None:
    """Return why a project cannot have this name, and one that it can have; None if it can.

    Examples
    --------
    >>> name_problem("plant")
    >>> name_problem("my-plant").rpartition(", ")[2]
    "for example 'my_plant'"
    """
    if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]*", name):
        return None
    rule = "a project's name holds letters A to Z and a to z, digits and _, and does not begin with _"
    return f"{rule}, for example {suggested_name(name)!r}" if isinstance(name, str) else rule


def suggested_name(name: str) -> str:
    """Return the nearest name that a project can have."""
    return re.sub("[^A-Za-z0-9_]", "_", name).lstrip("_") or "project"


def one_line(error: BaseException) -> str:
    """Return an error as one line, whatever its library puts into it."""
    text = " ".join(str(error).split()).partition(" [type=")[0]
    text = _FIELD.sub(r"\1 \2", text)
    return f"{type(error).__name__}: {text}"
