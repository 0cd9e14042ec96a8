"""Types of aggregated columns from the contract, checked against the declared feature types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from millstream.core.avro.schema import Field
from millstream.core.avro.schema_field import Kind
from millstream.core.contracts import Contract
from millstream.core.declaration import Aggregate, ColumnType, Declaration, FeatureType, View
from millstream.errors import Misconfigured
from millstream.topology import LABEL

_TYPES: Final[Mapping[Kind, ColumnType]] = {
    "float": "real",
    "double": "real",
    "int": "integer",
    "boolean": "integer",
    "long": "long",
    "string": "text",
    "bytes": "text",
    "enum": "text",
}
"""Other types are sequences of bytes, and counted as such."""
_WHOLE: Final[frozenset[FeatureType]] = frozenset({"int64", "int32"})
_COUNTS: Final = frozenset({"count", "count_distinct"})


def with_column_types(declaration: Declaration, contract: Contract) -> Declaration:
    """Return the declaration with the type of each aggregated column; the columns must be in the contract.

    Raises
    ------
    Misconfigured
        Naming the aggregation whose declared type cannot hold its results, or whose column cannot be aggregated so.
    """
    fields = {field.name: field for field in contract.schema.fields}
    return replace(declaration, views=tuple(_typed(view, fields, declaration.topic) for view in declaration.views))


def _typed(view: View, fields: Mapping[str, Field], topic: str) -> View:
    made = []
    for each in view.aggregates:
        if view.of_labels and each.column == LABEL:
            # Labels are 0 and 1, whatever type carries them: as real numbers they are as exact, and answered sooner.
            whole = each.dtype in _WHOLE and each.function not in _COUNTS
            made.append(replace(each, column_type="integer" if whole else "real"))
            continue
        field = fields[each.column]
        found = replace(each, column_type=_TYPES.get(field.kind, "text"))
        _check(view, found, field, topic)
        made.append(found)
    return replace(view, aggregates=tuple(made))


def _check(view: View, each: Aggregate, field: Field, topic: str) -> None:
    what = f"stream feature view {view.name!r}: aggregation {each.feature!r}"
    column = f"{each.column!r}, which is {field.kind} in the contract of {topic}"
    if each.column_type == "text" and each.function not in _COUNTS:
        raise Misconfigured(
            f"{what} is the {each.function} of {column}; supported for text, bytes and enums: "
            f"{', '.join(sorted(_COUNTS))}"
        )
    if field.logical_type == "decimal" and each.function != "count":
        # One number has several encodings, and as bytes they would be several values.
        raise Misconfigured(
            f"{what} is the {each.function} of {each.column!r}, which is a decimal in the contract of {topic}; "
            "supported for decimals: count. Publish the amount as a long of the smallest unit, or as a double"
        )
    if each.dtype in _WHOLE and each.column_type == "real" and each.function not in _COUNTS:
        raise Misconfigured(
            f"{what} is declared {each.dtype}, but the {each.function} of {column}, is no whole number; "
            "declare it Float64 or Float32"
        )
