"""Uniqueness of declared objects, and of the columns, topics and stages derived from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from millstream.core.contracts import Contract
from millstream.core.declaration import Declaration
from millstream.errors import Misconfigured
from millstream.topology import (
    ALERTS,
    EXAMPLES,
    LABELS,
    LOOP,
    MEASURES,
    MODELS,
    PREDICTIONS,
    SCHEMAS,
    SCORED,
    SNAPSHOTS,
    Topology,
)

_STAMPS = ("received_at_ms", "source_partition", "source_offset")
_TOPICS = frozenset({SCORED, PREDICTIONS, MODELS, SCHEMAS, LABELS, EXAMPLES, SNAPSHOTS, MEASURES, ALERTS})


def check_objects(objects: Iterable[Any]) -> None:
    """Refuse different objects of the same kind and name; Feast compares names of views whatever their case.

    Raises
    ------
    Misconfigured
        Naming them.
    """
    from feast import Entity
    from feast.base_feature_view import BaseFeatureView

    seen: dict[tuple[str, str], Any] = {}
    for thing in objects:
        if isinstance(thing, BaseFeatureView):
            kind, name, same = "feature views", thing.name.lower(), False
        elif isinstance(thing, Entity):
            kind, name, same = "entities", thing.name, thing == seen.get(("entities", thing.name))
        else:
            continue
        first = seen.setdefault((kind, name), thing)
        if first is not thing and not same:
            raise Misconfigured(
                f"the repo declares two {kind} called {thing.name!r}; give each a name of its own, and select features "
                "or rename a view within the FeatureService only"
            )


def check_distinct(declaration: Declaration) -> None:
    """Refuse features that would be the same column, and a service that reads what is not there.

    Raises
    ------
    Misconfigured
        Naming both objects and the column.
    """
    owners: dict[str, str] = {}
    for what, view, features in _views(declaration):
        owner = f"{what} {view!r}"
        for feature in features:
            column = f"{view}__{feature}"
            if column in owners:
                raise Misconfigured(
                    f"{owner}: feature {feature!r} would be the column {column!r}, as would a feature of "
                    f"{owners[column]}; rename one"
                )
            owners[column] = owner
    for column, _ in declaration.service.features:
        if column not in owners:
            raise Misconfigured(
                f"FeatureService {declaration.service.name!r} reads {column}, which no view of the repo provides"
            )


def check_taken(declaration: Declaration, contract: Contract, envelope: Contract) -> None:
    """Refuse columns that two would write, and entities whose stage would share a name with another use.

    Parameters
    ----------
    contract : Contract
        Of the event topic.
    envelope : Contract
        What the engine writes beside an event's fields.

    Raises
    ------
    Misconfigured
        Naming the field, column or entity.
    """
    taken = {*envelope.schema.names, *_STAMPS}
    if both := sorted(taken & set(contract.schema.names)):
        raise Misconfigured(
            f"the contract of {declaration.topic!r} has the field(s) {', '.join(both)}, which the engine writes beside "
            f"the event's own; rename them. Taken are: {', '.join(sorted(taken))}"
        )
    entities = {view.entity for view in declaration.views}
    written = {f"{entity}__feature_time_us": f"the time of entity {entity!r}" for entity in entities}
    for what, view, features in _views(declaration):
        written |= {f"{view}__{feature}": f"{what} {view!r}" for feature in features}
        for entity in entities:
            if view == entity and "feature_time_us" in features:
                raise Misconfigured(f"{what} {view!r}: feature 'feature_time_us' is what the engine calls its time")
    for column in contract.schema.names:
        if column in written:
            raise Misconfigured(
                f"the contract of {declaration.topic!r} has a field {column!r}, which is the column of "
                f"{written[column]} as well; rename one"
            )
    for entity in sorted(entities):
        if entity in LOOP:
            raise Misconfigured(f"no entity may be called {entity!r}: a stage of the label loop is")
        if entity in _TOPICS:
            raise Misconfigured(f"no entity may be called {entity!r}: a topic that the engine writes is")


def check_topics(topology: Topology) -> None:
    """Refuse two topics of one name.

    Raises
    ------
    Misconfigured
        Naming it.
    """
    for name, count in Counter(topic.name for topic in topology.topics).items():
        if count > 1:
            raise Misconfigured(f"two topics would be called {name!r}; rename the event topic or an entity")


def _views(declaration: Declaration) -> Iterable[tuple[str, str, list[str]]]:
    for view in declaration.views:
        yield "stream feature view", view.name, [each.feature for each in view.aggregates]
    for on_demand in declaration.on_demand:
        yield "on-demand view", on_demand.name, [name for name, _ in on_demand.outputs]
    for batch in declaration.batch:
        yield "feature view", batch.name, [name for name, _ in batch.features]
