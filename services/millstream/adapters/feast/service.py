"""The feature service: what the model reads, and the rule that answers without one.

Feast gives a view in a service other names and keys (`with_name`, `with_join_key_map`), or an older version. A view's
features are computed here once, by its entity's own key, so these are refused by name; a selection is honoured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from millstream.adapters.feast.parameters import refuse_unsupported
from millstream.adapters.feast.types import feature_type
from millstream.core.declaration import Service
from millstream.errors import Misconfigured


def refuse_renamed(owner: str, projection: Any) -> None:
    """Refuse a view that is read under another name, by another key, or in an older version.

    Raises
    ------
    Misconfigured
        Naming view and map, name or version.
    """
    view = f"{owner} reads view {projection.name!r}"
    mapped = {key: other for key, other in projection.join_key_map.items() if key != other}
    if mapped:
        pairs = ", ".join(f"{key!r} by {other!r}" for key, other in mapped.items())
        raise Misconfigured(
            f"{view} with_join_key_map ({pairs}): its features are computed by its entity's own key only. Declare an "
            "entity with that join key, and a view of it"
        )
    if projection.name_alias and projection.name_alias != projection.name:
        raise Misconfigured(
            f"{view} with_name({projection.name_alias!r}): its features are computed as {projection.name}__*. Leave it "
            "out, or name the view so"
        )
    if projection.version_tag is not None:
        raise Misconfigured(f"{view} in version {projection.version_tag}: only what the files declare now is computed")


def feature_service(service: Any, views: Mapping[str, Any]) -> Service:
    """Return a feature service with the rule in its tags.

    Parameters
    ----------
    views : mapping of str to Feast view
        Of the repo, by name.

    Raises
    ------
    Misconfigured
        Naming what the service has that is not supported, or reads and is not there.
    """
    what = f"FeatureService {service.name!r}"
    refuse_unsupported("FeatureService", what, service)
    _resolve_names(what, service, views)
    for projection in service.feature_view_projections:
        refuse_renamed(what, projection)
        if not projection.features:
            raise Misconfigured(f"{what} reads view {projection.name!r} and none of its features")
    features = tuple(
        (f"{projection.name}__{field.name}", feature_type(what, field))
        for projection in service.feature_view_projections
        for field in projection.features
    )
    twice = [name for name, count in Counter(name for name, _ in features).items() if count > 1]
    if twice:
        raise Misconfigured(f"{what} reads {', '.join(twice)} more than once")
    tags = dict(service.tags)
    return Service(service.name, features, _baseline(what, tags), _threshold(what, tags), tags)


def _resolve_names(what: str, service: Any, views: Mapping[str, Any]) -> None:
    """Replace views that are named as text by the views, as Feast does when it applies the service."""
    for reference in getattr(service, "_pending_feature_refs", ()):
        view, _, _ = reference.partition(":")
        if "@" in view:
            raise Misconfigured(f"{what} reads {reference!r}: only what the files declare now is computed")
        if view not in views:
            raise Misconfigured(f"{what} reads {reference!r}, but the repo has no view {view!r}")
    try:
        service.resolve_pending_refs("", None, dict(views))
    except ValueError as error:
        raise Misconfigured(f"{what}: {error}") from error


def _baseline(what: str, tags: Mapping[str, str]) -> str:
    import polars as pl

    baseline = tags.get("baseline")
    if not baseline:
        raise Misconfigured(
            f"{what} needs a tag 'baseline': an SQL expression over event fields and features that gives a score in "
            "[0, 1], the answer while no model can give one, e.g. CASE WHEN amount > 220 THEN 1.0 ELSE 0.0 END"
        )
    try:
        pl.sql_expr(baseline)
    except pl.exceptions.PolarsError as error:
        raise Misconfigured(f"{what}: the baseline is no SQL expression: {error}") from error
    return baseline


def _threshold(what: str, tags: Mapping[str, str]) -> float:
    try:
        threshold = float(tags.get("threshold", "0.5"))
    except ValueError as error:
        raise Misconfigured(f"{what}: threshold {tags['threshold']!r} is no number in [0, 1]") from error
    if not 0.0 <= threshold <= 1.0:
        raise Misconfigured(f"{what}: threshold {tags['threshold']!r} is not in [0, 1]")
    return threshold
