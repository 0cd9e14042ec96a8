"""Made-up records, to compile kernels on before real ones come."""

from __future__ import annotations

import numpy as np

from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.schema import Schema
from millstream.core.batch import Array, Batch
from millstream.core.text import as_text
from millstream.runtime.log.records import Records


def sample_records(topic: str, schema: Schema, key: str) -> Records:
    """Return two records of a schema, of partition -1, keyed by a column."""
    made: dict[str, Array] = {}
    for field in schema.fields:
        if field.kind in {"int", "long"}:
            made[field.name] = np.array([1, 2])
        elif field.kind in {"float", "double"}:
            made[field.name] = np.array([1.0, 2.0])
        elif field.kind == "boolean":
            made[field.name] = np.array([False, True])
        else:
            made[field.name] = np.array(
                [bytes(field.size) if field.kind in {"bytes", "fixed"} else field.symbols[0] if field.symbols else "a"]
                * 2,
                dtype=object,
            )
    values = RecordWriter(schema).encode(Batch(2, made))
    return Records(topic, np.array([-1, -1]), np.array([0, 1]), np.array([1, 2]), as_text(made[key]), values)
