"""Names of a feature repo that become Avro names: of features, which are fields, and of entities."""

from __future__ import annotations

from collections.abc import Iterator

from millstream.core.avro.schema_type import as_name, is_name
from millstream.core.declaration import Declaration
from millstream.errors import Misconfigured


def check_names(declaration: Declaration) -> None:
    """Refuse names that cannot be part of an Avro field's name.

    Feast allows hyphens in the names of views and features. A feature travels as the field ``{view}__{feature}`` of
    the records that the engine writes, and Avro allows none there.

    Raises
    ------
    Misconfigured
        Naming everything that must be renamed, and what is allowed.
    """
    bad = [
        f"{what} {name!r} (for example {as_name(name)!r})" for what, name in _names(declaration) if not is_name(name)
    ]
    if bad:
        raise Misconfigured(
            f"rename {', '.join(dict.fromkeys(bad))}: features are fields of Avro records, whose names hold letters "
            "A to Z and a to z, digits and _, and do not begin with a digit"
        )


def _names(declaration: Declaration) -> Iterator[tuple[str, str]]:
    for view in declaration.views:
        yield "stream feature view", view.name
        yield "entity", view.entity
        for each in view.aggregates:
            yield f"feature of {view.name!r}", each.feature
    for on_demand in declaration.on_demand:
        yield "on-demand view", on_demand.name
        for name, _ in on_demand.outputs:
            yield f"feature of {on_demand.name!r}", name
    for batch in declaration.batch:
        yield "feature view", batch.name
        for name, _ in batch.features:
            yield f"feature of {batch.name!r}", name
