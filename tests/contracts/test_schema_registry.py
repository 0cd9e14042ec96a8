"""The registry adapter against a small server that speaks the registry's REST protocol."""

import io
import json
from collections.abc import Iterator
from decimal import Decimal
from types import SimpleNamespace

import fastavro
import numpy as np
import pytest

from cards import TRANSACTIONS, events, published
from millstream.adapters.kafka.schema_registry import SchemaRegistry, connect, registry_prefix
from millstream.adapters.kafka.schema_topic import schema_resolver
from millstream.app.consuming import decoded
from millstream.app.publish_warnings import newest_event_ms
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.schema import Schema, SchemaError, SchemaId
from millstream.core.batch import Batch
from millstream.errors import Misconfigured, Retry
from millstream.settings import load_settings
from millstream_lab.chaos.registry_stub import RegistryStub

SCHEMA = Schema.parse({"type": "record", "name": "E", "fields": [{"name": "x", "type": "long"}]})


@pytest.fixture
def server() -> Iterator[RegistryStub]:
    server = RegistryStub()
    server.serve()
    yield server
    server.shutdown()
    server.server_close()


def registry(server: RegistryStub, **settings: str) -> SchemaRegistry:
    found = connect(load_settings({}, schema_registry_url=server.url, **settings))
    assert found is not None
    return found


def test_without_a_url_there_is_no_registry() -> None:
    assert connect(load_settings({})) is None


def test_what_one_process_registers_another_reads(server: RegistryStub) -> None:
    writer, reader = registry(server), registry(server)
    schema_id = writer.register("events", SCHEMA)
    assert writer.register("events", SCHEMA) == schema_id
    assert set(server.subjects) == {"events-value"}
    values = RecordWriter(SCHEMA, registry_prefix(schema_id)).encode(Batch(2, {"x": np.array([7, 8])}))
    assert values[0] == b"\0\0\0\0\1\x0e"
    codec = RecordReader(Schema.parse(SCHEMA.to_json().replace("long", "double")), reader)
    before = server.requests
    for _ in range(3):
        assert codec.decode(values, 100).batch.columns["x"].tolist() == [7.0, 8.0]
    assert server.requests == before + 1


def test_ingest_reads_the_newest_event_in_the_registry_s_framing(
    server: RegistryStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema_id = registry(server).register("transactions", TRANSACTIONS.schema)
    value = published(events(1), registry_prefix(schema_id)).values[0]
    records = [(0, SimpleNamespace(value=lambda: value))]
    monkeypatch.setattr("millstream.app.publish_warnings.newest", lambda *_given: records)
    monkeypatch.setattr("millstream.adapters.kafka.schema_topic.read_schemas", lambda _kafka: {})
    settings = load_settings({}, schema_registry_url=server.url)
    assert newest_event_ms(settings, {}, "transactions", TRANSACTIONS) == events(1).columns["event_time_ms"][0]


def test_an_unknown_id_is_remembered_for_a_minute(server: RegistryStub) -> None:
    now_s = [0.0]
    found = SchemaRegistry(registry(server)._client, lambda: now_s[0])
    for _ in range(3):
        assert found(SchemaId("registry", 1)) is None
    assert server.requests == 1
    registry(server).register("events", SCHEMA)
    now_s[0] = 61.0
    assert found(SchemaId("registry", 1)) == SCHEMA
    assert found(SchemaId("fingerprint", 1)) is None


def test_schemas_that_cannot_be_read_are_incompatible_and_looked_up_once(
    server: RegistryStub, caplog: pytest.LogCaptureFixture
) -> None:
    server.texts += [{"schema": "{}", "schemaType": "JSON"}, {"schema": '{"type": "array", "items": "long"}'}]
    found = registry(server)
    reader = RecordReader(SCHEMA, found)
    for _ in range(2):
        rejections = reader.decode([b"\0\0\0\0\1\2", b"\0\0\0\0\2\2"], 100).rejections
        assert [each.reason for each in rejections] == ["incompatible-schema"] * 2
    assert "schema 1 of the registry is JSON; only Avro is read" in rejections[0].detail
    assert "must be an Avro record" in rejections[1].detail
    with pytest.raises(SchemaError, match="only Avro"):
        found(SchemaId("registry", 1))
    assert server.requests == 2
    assert "schema 2 of the registry cannot be used" in caplog.text


def test_the_reason_of_a_schema_that_the_contract_cannot_read_names_the_field(server: RegistryStub) -> None:
    number = server.add({"schema": SCHEMA.to_json().replace('"long"', '{"type": "array", "items": "long"}')})
    value = b"\0" + number.to_bytes(4, "big") + b"\0"
    (rejection,) = RecordReader(SCHEMA, registry(server)).decode([value], 100).rejections
    assert (rejection.reason, rejection.field) == ("incompatible-schema", "x")
    assert "field 'x': array cannot be read as long" in rejection.detail


def test_errors_say_what_is_to_be_done(server: RegistryStub) -> None:
    found = registry(server, schema_registry_user_info="me:secret")
    server.status = 503
    with pytest.raises(Retry):
        found(SchemaId("registry", 1))
    server.status = 401
    with pytest.raises(Misconfigured, match="MILLSTREAM_SCHEMA_REGISTRY_USER_INFO") as refused:
        found.register("events", SCHEMA)
    assert "secret" not in str(refused.value)
    assert server.authorization is not None
    server.status = 409
    with pytest.raises(Misconfigured, match="compatibility"):
        found.register("events", SCHEMA)
    server.status = 404
    with pytest.raises(Misconfigured, match="register"):
        found.register("events", SCHEMA)


def test_a_registry_that_is_away_is_retried() -> None:
    away = RegistryStub()
    away.server_close()
    with pytest.raises(Retry, match="cannot be reached"):
        registry(away)(SchemaId("registry", 1))


def test_a_malformed_url_is_told() -> None:
    with pytest.raises(Misconfigured, match="SCHEMA_REGISTRY_URL"):
        connect(load_settings({}, schema_registry_url="registry:8081"))


def test_commands_read_a_topic_of_both_framings_and_what_columns_cannot_hold(server: RegistryStub) -> None:
    grown = json.loads(SCHEMA.to_json())
    grown["fields"] += [
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "fee", "type": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}},
    ]
    number = server.add({"schema": json.dumps(grown)})
    resolver = schema_resolver(load_settings({}, schema_registry_url=server.url), {}, [SCHEMA])
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(grown), {"x": 7, "tags": ["a"], "fee": Decimal("12.34")})
    framed = b"\0" + number.to_bytes(4, "big") + body.getvalue()
    assert decoded(framed, resolver) == {"x": 7, "tags": ["a"], "fee": Decimal("12.34")}
    assert decoded(SCHEMA.single_object_prefix + b"\x0e", resolver) == {"x": 7}
    assert decoded(None, resolver) == {"tombstone": True}
    assert "no schema is known for registry 9" in decoded(b"\0\0\0\0\x09\2", resolver)["why"]
