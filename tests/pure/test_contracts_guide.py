"""The code in the guide's page on contracts, run as it stands there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cards import events, first_stage, view
from guide import blocks
from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.schema import Schema

PAGE = Path(__file__).parents[2] / "infra" / "docs" / "contracts.md"


class Message:
    """What a consumer hands out."""

    def __init__(self, key: bytes, value: bytes) -> None:
        self._key, self._value = key, value

    def key(self) -> bytes:
        return self._key

    def value(self) -> bytes:
        return self._value


def guide() -> dict[str, Any]:
    """Return what the page's Python code defines."""
    (block,) = (each for each in blocks(PAGE) if each.language == "python")
    found: dict[str, Any] = {}
    exec(block.text, found)
    return found


def test_an_outside_reader_decodes_what_a_stage_writes() -> None:
    page, plan = guide(), first_stage(view("customer_activity", "customer")).plan
    schema: Schema = plan.output_schema
    batch = events(5)
    columns = {
        item.name: batch.columns.get(item.name, batch.columns["transaction_id"])
        for item in schema.fields
        if item.name in batch.columns or item.kind in {"int", "long"}
    }
    values = RecordWriter(schema).encode(type(batch)(5, columns))
    messages = [
        Message(f"{each.fingerprint:016x}".encode(), each.to_json().encode()) for each in (schema, plan.input_schema)
    ]
    found = [page["decode"](value, page["schemas"](messages)) for value in values]
    assert [each["amount"] for each in found] == batch.columns["amount"].tolist()
    assert [each["event_time_ms"].timestamp() * 1000 for each in found] == batch.columns["event_time_ms"].tolist()
