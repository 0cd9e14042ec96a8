"""The schema of an example: the scored record as served, and its label."""

from __future__ import annotations

from millstream.core.avro.schema import Schema, SchemaError
from millstream.core.contracts import Contract
from millstream.errors import Misconfigured


def examples_schema(scored: Schema, envelope: Contract) -> Schema:
    """Return the schema of `examples`: every scored field, then those of ``schemas/examples.avsc``.

    Raises
    ------
    Misconfigured
        If an event field has the name of an envelope field.
    """
    namespace = scored.name.rpartition(".")[0]
    try:
        return scored.extend(after=envelope.schema.fields, name=f"{namespace}.examples" if namespace else "examples")
    except SchemaError as error:
        raise Misconfigured(f"{error}. Rename the event's field: examples need theirs") from error
