"""A schema registry on loopback, as far as its REST protocol is used: subjects and ids in memory."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class RegistryStub(ThreadingHTTPServer):
    """Serves from `serve` to `shutdown`.

    Attributes
    ----------
    texts : list of dict
        Registered schemas; the id is the position plus one.
    subjects : list of str
        Under which names, in order of registration.
    requests, refused : int
        How many came, and how many of them were answered with another status.
    status : int
        Other than 200 it is answered to everything.
    authorization : str or None
        As last sent.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.texts: list[dict[str, Any]] = []
        self.subjects: list[str] = []
        self.requests = 0
        self.refused = 0
        self.status = 200
        self.authorization: str | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def serve(self) -> None:
        """Answer from a thread of its own."""
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def add(self, schema: dict[str, Any]) -> int:
        """Register a schema and return its id."""
        if schema not in self.texts:
            self.texts.append(schema)
        return self.texts.index(schema) + 1


class _Handler(BaseHTTPRequestHandler):
    server: RegistryStub

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _refused(self) -> bool:
        self.server.requests += 1
        self.server.authorization = self.headers.get("Authorization")
        if self.server.status != 200:
            self.server.refused += 1
            self._answer(self.server.status, {"error_code": self.server.status * 100 + 1, "message": "no"})
        return self.server.status != 200

    def do_POST(self) -> None:
        """Register a schema."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._refused():
            self.server.subjects.append(self.path.split("/")[2])
            self._answer(200, {"id": self.server.add(body)})

    def do_GET(self) -> None:
        """Look an id up."""
        if self._refused():
            return
        number = int(self.path.split("?")[0].rsplit("/", 1)[1])
        if 0 < number <= len(self.server.texts):
            self._answer(200, self.server.texts[number - 1])
        else:
            self._answer(404, {"error_code": 40403, "message": "Schema not found"})
