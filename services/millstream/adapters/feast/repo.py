"""The Feast repo: its objects compiled into a `Declaration`, applied to the registry, and opened as a store.

What the engine cannot compute is refused here, at start, by name. Feast is imported only inside the functions (it costs
seconds and memory), after the metrics library.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from millstream.adapters.feast.config import load_config, one_line, repo_folder
from millstream.adapters.feast.declarations import batch_view, on_demand_view, stream_view
from millstream.adapters.feast.declared_columns import check_distinct, check_objects
from millstream.adapters.feast.declared_names import check_names
from millstream.adapters.feast.importing import import_feast
from millstream.adapters.feast.service import feature_service
from millstream.core.contracts import Contract
from millstream.core.declaration import Declaration, FeatureType
from millstream.errors import MillstreamError, Misconfigured, Retry
from millstream.settings import PREFIX, Settings
from millstream.topology import LABEL

if TYPE_CHECKING:
    from feast import FeatureStore

_NUMBERS = ("int", "long", "float", "double")
_KINDS: dict[FeatureType, tuple[str, ...]] = {
    **dict.fromkeys(("int64", "int32", "float64", "float32"), _NUMBERS),
    "bool": ("boolean",),
    "string": ("string", "enum"),
    "unix_timestamp": (),
}
_OVER_ANYTHING = frozenset({"count", "count_distinct"})
_SQLITE = "sqlite:///"


@contextmanager
def quiet_feast() -> Iterator[None]:
    """Keep Feast's notes about its own alpha features from the operator; ours are errors with advice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_feast()  # puts filters of its own in front
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
    repo = repo_folder(settings)
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
                except (Exception, SystemExit) as error:  # a team's own code may raise anything
                    lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == str(file)]
                    where = f"{file}, line {lines[-1]}" if lines else str(file)
                    raise Misconfigured(f"{where}: {one_line(error)}") from error
                for thing in vars(module).values():
                    # By its type: a user's object may report any class.
                    if issubclass(
                        type(thing), Entity | FeatureView | OnDemandFeatureView | FeatureService | DataSource
                    ):
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

        project = load_config(settings).project
        check_objects(objects)
        entities = {thing.name: thing for thing in objects if isinstance(thing, Entity)}
        services = [thing for thing in objects if isinstance(thing, FeatureService)]
        declared = {thing.name: thing for thing in objects if isinstance(thing, FeatureView | OnDemandFeatureView)}
        views = [stream_view(thing, entities) for thing in declared.values() if isinstance(thing, StreamFeatureView)]
        if len(services) != 1:
            names = ", ".join(service.name for service in services) or "none"
            raise Misconfigured(
                f"the repo must declare exactly one FeatureService, what the model reads; found: {names}"
            )
        service = feature_service(services[0], declared)
        wanted = {projection.name for projection in services[0].feature_view_projections}
        on_demand = [
            on_demand_view(thing, declared)
            for thing in declared.values()
            if isinstance(thing, OnDemandFeatureView) and thing.name in wanted
        ]
        batch = [
            batch_view(thing, entities)
            for thing in declared.values()
            if isinstance(thing, FeatureView) and not isinstance(thing, StreamFeatureView) and thing.name in wanted
        ]
        topics = {view.topic for view in views if not view.of_labels}
        if len(topics) != 1:
            names = ", ".join(sorted(topics)) or "no StreamFeatureView"
            raise Misconfigured(f"stream feature views of events must read one topic; found: {names}")
    declaration = Declaration(project, topics.pop(), tuple(views), tuple(on_demand), tuple(batch), service)
    check_names(declaration)
    check_distinct(declaration)
    return declaration


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
                f"{owner} takes its time from {view.timestamp_column!r}; the contract has {contract.event_time!r}"
            )
    for batch in declaration.batch:
        for key, kind in batch.join_keys:
            need(f"feature view {batch.name!r}", key, ("int", "long") if kind == "int64" else ("string", "enum"))
    provided = {column for view in declaration.views for column in view.columns}
    for each in declaration.on_demand:
        owner, requested = f"on-demand view {each.name!r}", dict(each.requested)
        for column in each.inputs:
            if column in requested:
                need(owner, column, _KINDS[requested[column]])
            elif column not in provided:
                raise Misconfigured(
                    f"{owner} reads {column!r}; it can read request fields and features of stream feature views"
                )


def open_store(settings: Settings) -> FeatureStore:
    """Return a Feast client of the repo, for the settings' state directory and Redis.

    A registry that feature_store.yaml keeps in an SQLite file under a relative path is kept in the state directory,
    wherever that is; a leading ``.millstream/`` stands for it. One that is a plain file under a relative path is kept
    in the repo's folder, as Feast keeps it.
    """
    with quiet_feast():
        from feast import FeatureStore

        from millstream.adapters.feast.online_store import MillstreamRedisOnlineStoreConfig

        config = load_config(settings)
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
        store = FeatureStore(repo_path=str(config.repo_path), config=config)
    # For as long as the process lives: Feast warns each time it reads such a view from its registry.
    warnings.filterwarnings("ignore", "Stream feature views are experimental", RuntimeWarning)
    return store


def close_store(store: FeatureStore) -> None:
    """Close a client's connection to the online store; Feast leaves that to the garbage collector."""
    client = getattr(store._get_provider().online_store, "_client", None)
    if client is not None:
        client.close()


def apply(settings: Settings) -> None:
    """Apply the repo to its registry, as ``feast apply`` does: what the repo no longer has goes; safe to repeat."""
    objects = objects_of(settings)
    store = open_store(settings)
    with quiet_feast():
        from redis import RedisError

        registry, project = store.registry, store.project
        registered: list[Any] = [
            *registry.list_feature_services(project),
            *registry.list_all_feature_views(project),
            *(entity for entity in registry.list_entities(project) if entity.name != "__dummy"),
        ]
        kept = {(type(thing), thing.name) for thing in objects}
        gone = [thing for thing in registered if (type(thing), thing.name) not in kept]
        _infer_outputs(objects)
        try:
            store.apply(objects, objects_to_delete=gone, partial=False)
        except MillstreamError:
            raise
        except RedisError as error:
            raise Retry(f"the online store cannot be reached: {one_line(error)}; see `millstream doctor`") from error
        except Exception as error:  # Feast's own checks, or the registry's database
            raise Misconfigured(f"Feast does not take the repo: {one_line(error)}") from error


def _infer_outputs(objects: Iterable[Any]) -> None:
    """Call each on-demand view's function with Feast's sample values, as Feast does when it applies the view."""
    from feast import OnDemandFeatureView

    for view in objects:
        if isinstance(view, OnDemandFeatureView):
            try:
                view.infer_features()
            except Exception as error:  # of the team's function, or Feast's that its outputs are of other types
                raise Misconfigured(
                    f"on-demand view {view.name!r}: Feast calls its function with sample values to apply it, and does "
                    f"not take the outcome: {one_line(error)}"
                ) from error
