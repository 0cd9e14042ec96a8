"""The registry adapter against a small server that speaks the registry's REST protocol."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from services.adapters.schema_registry import SchemaRegistry, connect, registry_prefix
from services.core.avro.decode import RecordReader
from services.core.avro.encode import RecordWriter
from services.core.avro.schema import Schema, SchemaId
from services.core.batch import Batch
from services.errors import Misconfigured, Retry
from services.settings import load_settings

SCHEMA = Schema.parse({"type": "record", "name": "E", "fields": [{"name": "x", "type": "long"}]})


class FakeRegistry(ThreadingHTTPServer):
    """Subjects and ids in memory; ``status`` other than 200 is answered to everything."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.texts: list[dict[str, Any]] = []
        self.subjects: list[str] = []
        self.requests = 0
        self.status = 200
        self.authorization: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: FakeRegistry

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refused(self) -> bool:
        self.server.requests += 1
        self.server.authorization = self.headers.get("Authorization")
        if self.server.status != 200:
            self.answer(self.server.status, {"error_code": self.server.status * 100 + 1, "message": "no"})
        return self.server.status != 200

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.refused():
            return
        self.server.subjects.append(self.path.split("/")[2])
        if body not in self.server.texts:
            self.server.texts.append(body)
        self.answer(200, {"id": self.server.texts.index(body) + 1})

    def do_GET(self) -> None:
        if self.refused():
            return
        number = int(self.path.split("?")[0].rsplit("/", 1)[1])
        if 0 < number <= len(self.server.texts):
            self.answer(200, self.server.texts[number - 1])
        else:
            self.answer(404, {"error_code": 40403, "message": "Schema not found"})


@pytest.fixture
def server() -> Iterator[FakeRegistry]:
    server = FakeRegistry()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def registry(server: FakeRegistry, **settings: str) -> SchemaRegistry:
    found = connect(load_settings({}, schema_registry_url=server.url, **settings))
    assert found is not None
    return found


def test_without_a_url_there_is_no_registry() -> None:
    assert connect(load_settings({})) is None


def test_what_one_process_registers_another_reads(server: FakeRegistry) -> None:
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


def test_an_unknown_id_is_remembered_for_a_minute(server: FakeRegistry) -> None:
    now_s = [0.0]
    found = SchemaRegistry(registry(server)._client, lambda: now_s[0])
    for _ in range(3):
        assert found(SchemaId("registry", 1)) is None
    assert server.requests == 1
    registry(server).register("events", SCHEMA)
    now_s[0] = 61.0
    assert found(SchemaId("registry", 1)) == SCHEMA
    assert found(SchemaId("fingerprint", 1)) is None


def test_schemas_that_cannot_be_read_are_unknown(server: FakeRegistry, caplog: pytest.LogCaptureFixture) -> None:
    server.texts += [{"schema": "{}", "schemaType": "JSON"}, {"schema": '{"type": "array", "items": "long"}'}]
    found = registry(server)
    assert [found(SchemaId("registry", number)) for number in (1, 2)] == [None, None]
    assert "not Avro" in caplog.text
    assert "must be an Avro record" in caplog.text


def test_errors_say_what_is_to_be_done(server: FakeRegistry) -> None:
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
    away = FakeRegistry()
    away.server_close()
    with pytest.raises(Retry, match="cannot be reached"):
        registry(away)(SchemaId("registry", 1))


def test_a_malformed_url_is_told() -> None:
    with pytest.raises(Misconfigured, match="SCHEMA_REGISTRY_URL"):
        connect(load_settings({}, schema_registry_url="registry:8081"))
