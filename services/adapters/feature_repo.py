"""The Feast repo: its objects compiled into a `Declaration`, applied to the registry, and opened as a store.

What the engine cannot compute is refused here, at start, by name. Feast is imported only inside the functions (it costs
seconds and memory), after the metrics library.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from services.adapters.declared_names import check_names
from services.adapters.feast_declarations import batch_view, feature_service, on_demand_view, stream_view
from services.core.contracts import Contract
from services.core.declaration import Declaration
from services.errors import Misconfigured
from services.settings import PREFIX, Settings
from services.topology import LABEL

if TYPE_CHECKING:
    from feast import FeatureStore

_OVER_ANYTHING = frozenset({"count", "count_distinct"})
_SQLITE = "sqlite:///"


@contextmanager
def quiet_feast() -> Iterator[None]:
    """Keep Feast's notes about its own alpha features from the operator; ours are errors with advice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("feast")  # puts filters of its own in front
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _importable(settings: Settings, modules: list[str]) -> Iterator[None]:
    """Let the repo's files import one another by name, as under ``feast apply``, and find the state directory."""
    shadowed = {name: sys.modules.pop(name) for name in modules if name in sys.modules}
    repo = str(settings.feature_repo.resolve())
    variable = f"{PREFIX}STATE_DIR"
    before = os.environ.get(variable)
    os.environ[variable] = str(settings.state_dir.resolve())
    sys.path.insert(0, repo)
    try:
        yield
    finally:
        sys.path.remove(repo)
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before
        # Another repo in this process may have files of the same names.
        for name in modules:
            sys.modules.pop(name, None)
        sys.modules.update(shadowed)


def objects_of(settings: Settings) -> list[Any]:
    """Import the repo's Python files and return the Feast objects they define, each once, in order of appearance.

    Raises
    ------
    Misconfigured
        If there is no repo, or a file of it cannot be imported.
    """
    repo = settings.feature_repo.resolve()
    if not (repo / "feature_store.yaml").is_file():
        raise Misconfigured(f"{repo} holds no feature_store.yaml; point MILLSTREAM_FEATURE_REPO at the Feast repo")
    with quiet_feast():
        from feast import Entity, FeatureService, FeatureView, OnDemandFeatureView
        from feast.data_source import DataSource
        from feast.repo_operations import get_repo_files

        files = {".".join(file.relative_to(repo).with_suffix("").parts): file for file in get_repo_files(repo)}
        found: dict[int, Any] = {}
        with _importable(settings, list(files)):
            for name, file in files.items():
                try:
                    module = importlib.import_module(name)
                except Exception as error:  # a team's own code: whatever it raises, the file and the reason are told
                    lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == str(file)]
                    where = f"{file}, line {lines[-1]}" if lines else str(file)
                    raise Misconfigured(f"{where}: {type(error).__name__}: {error}") from error
                for thing in vars(module).values():
                    if isinstance(thing, Entity | FeatureView | OnDemandFeatureView | FeatureService | DataSource):
                        found.setdefault(id(thing), thing)
    return list(found.values())


def load_declaration(settings: Settings) -> Declaration:
    """Compile the feature repo.

    Raises
    ------
    Misconfigured
        Naming the object that the engine cannot run, what is wrong with it, and what is supported.
    """
    objects = objects_of(settings)
    with quiet_feast():
        from feast import Entity, FeatureService, OnDemandFeatureView
        from feast.feature_view import FeatureView
        from feast.stream_feature_view import StreamFeatureView

        project = _project(settings)
        entities = {thing.name: thing for thing in objects if isinstance(thing, Entity)}
        services = [thing for thing in objects if isinstance(thing, FeatureService)]
        views = [stream_view(thing, entities) for thing in objects if isinstance(thing, StreamFeatureView)]
        if len(services) != 1:
            names = ", ".join(service.name for service in services) or "none"
            raise Misconfigured(
                f"the repo must declare exactly one FeatureService, what the model reads; found: {names}"
            )
        wanted = {projection.name for projection in services[0].feature_view_projections}
        on_demand = [
            on_demand_view(thing)
            for thing in objects
            if isinstance(thing, OnDemandFeatureView) and thing.name in wanted
        ]
        batch = [
            batch_view(thing, entities)
            for thing in objects
            if isinstance(thing, FeatureView) and not isinstance(thing, StreamFeatureView) and thing.name in wanted
        ]
        topics = {view.topic for view in views if not view.of_labels}
        if len(topics) != 1:
            names = ", ".join(sorted(topics)) or "no StreamFeatureView"
            raise Misconfigured(f"stream feature views of events must read one topic; found: {names}")
        service = feature_service(services[0])
    known = {column for view in views for column in view.columns}
    known |= {f"{each.name}__{name}" for each in on_demand for name, _ in each.outputs}
    known |= {f"{each.name}__{name}" for each in batch for name, _ in each.features}
    for column, _ in service.features:
        if column not in known:
            raise Misconfigured(f"FeatureService {service.name!r} reads {column}, which no view of the repo provides")
    declaration = Declaration(project, topics.pop(), tuple(views), tuple(on_demand), tuple(batch), service)
    check_names(declaration)
    return declaration


def _project(settings: Settings) -> str:
    """Return the project's name, as Feast reads it: variables of the environment are expanded."""
    from yaml import YAMLError, safe_load

    file = settings.feature_repo / "feature_store.yaml"
    try:
        content = safe_load(os.path.expandvars(file.read_text(encoding="utf-8")))
    except YAMLError as error:
        raise Misconfigured(f"{file} is no YAML: {error}") from error
    name = content.get("project") if isinstance(content, dict) else None
    if not isinstance(name, str) or not re.fullmatch(r"[^\W_][\w-]*", name):
        raise Misconfigured(
            f"{file}: project is {name!r}; it must be of letters, digits, _ and -, the first a letter or digit"
        )
    return name


def check_columns(declaration: Declaration, contract: Contract) -> None:
    """Hold the declaration against the event contract.

    Raises
    ------
    Misconfigured
        Naming the column that the contract does not have or that is of the wrong kind.
    """
    kinds = {field.name: field.kind for field in contract.schema.fields}

    def need(owner: str, column: str, allowed: Iterable[str] | None = None) -> None:
        if column not in kinds:
            raise Misconfigured(
                f"{owner} reads {column!r}, but the contract of {declaration.topic} has only: {', '.join(kinds)}"
            )
        if allowed is not None and kinds[column] not in set(allowed):
            raise Misconfigured(f"{owner} reads {column!r} of kind {kinds[column]}; it must be {', '.join(allowed)}")

    for view in declaration.views:
        owner = f"stream feature view {view.name!r}"
        need(owner, view.join_key, ("int", "long") if view.key_type == "int64" else ("string", "enum"))
        numbers = ("int", "long", "float", "double", "boolean")
        for aggregate in view.aggregates:
            if not (view.of_labels and aggregate.column == LABEL):
                need(owner, aggregate.column, None if aggregate.function in _OVER_ANYTHING else numbers)
        if view.of_labels:
            continue
        need(owner, view.timestamp_column, ("long",))
        if view.timestamp_column != contract.event_time:
            raise Misconfigured(
                f"{owner} takes its time from {view.timestamp_column!r}; the contract says {contract.event_time!r}"
            )
    provided = {column for view in declaration.views for column in view.columns}
    for each in declaration.on_demand:
        for column in each.inputs:
            if column not in provided:
                need(f"on-demand view {each.name!r}", column)
        provided |= {f"{each.name}__{name}" for name, _ in each.outputs}


def open_store(settings: Settings) -> FeatureStore:
    """Return a Feast client of the repo, for the settings' state directory and Redis.

    A registry that feature_store.yaml keeps in an SQLite file under a relative path is kept in the state directory,
    wherever that is; a leading ``.millstream/`` stands for it. One that is a plain file under a relative path is kept
    in the repo's folder, as Feast keeps it.
    """
    with quiet_feast():
        from feast import FeatureStore
        from feast.repo_config import load_repo_config

        from services.adapters.online_store import MillstreamRedisOnlineStoreConfig

        repo = settings.feature_repo.resolve()
        config = load_repo_config(repo, repo / "feature_store.yaml")
        state_dir = settings.state_dir.resolve()
        path = config.registry.path.removeprefix(_SQLITE)
        if path != config.registry.path and not path.startswith("/"):
            registry = state_dir / path.removeprefix(".millstream/")
            registry.parent.mkdir(parents=True, exist_ok=True)
            config.registry.path = f"{_SQLITE}{registry}"
        online = config.online_store
        if isinstance(online, MillstreamRedisOnlineStoreConfig) and not online.connection_string:
            online.url = online.url or settings.redis_url
            online.state_dir = state_dir
        store = FeatureStore(repo_path=str(repo), config=config)
    # For as long as the process lives: Feast warns each time it reads such a view from its registry.
    warnings.filterwarnings("ignore", "Stream feature views are experimental", RuntimeWarning)
    return store


def apply(settings: Settings) -> None:
    """Apply the repo to its registry, as ``feast apply`` does: what the repo no longer has goes; safe to repeat."""
    objects = objects_of(settings)
    store = open_store(settings)
    with quiet_feast():
        registry, project = store.registry, store.project
        registered: list[Any] = [
            *registry.list_feature_services(project),
            *registry.list_all_feature_views(project),
            *(entity for entity in registry.list_entities(project) if entity.name != "__dummy"),
        ]
        kept = {(type(thing), thing.name) for thing in objects}
        gone = [thing for thing in registered if (type(thing), thing.name) not in kept]
        store.apply(objects, objects_to_delete=gone, partial=False)
