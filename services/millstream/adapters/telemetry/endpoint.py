"""The worker's HTTP endpoint: ``/metrics`` for Prometheus, ``/health`` and ``/ready`` for the orchestrator."""

from __future__ import annotations

import json
import logging
import os
import socketserver
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import quote

from prometheus_client import CONTENT_TYPE_LATEST

from millstream.errors import Misconfigured

logger = logging.getLogger(__name__)

Check = Callable[[], Mapping[str, str]]
"""Names what is not well and why, in words; empty when all is well. Called from the endpoint's threads."""


class TelemetryEndpoint:
    """Serves until `close`.

    While it serves, ``{state_dir}/workers/{worker}.json`` holds its address: ``host``, ``port``, ``pid``, ``stages``.

    Parameters
    ----------
    exposition : callable
        Returns what ``/metrics`` shows, in Prometheus' text format.
    health, ready : Check
        200 while they return nothing, else 503 with the reasons.
    host : str
        Address to bind. There is no authentication: anything but loopback belongs behind a network policy.
    port : int
        0 takes a free one.
    state_dir : Path
    worker : str
        Name of this worker.
    stages : sequence of str
        Names of the stages it runs.

    Raises
    ------
    Misconfigured
        The address cannot be bound.
    """

    def __init__(
        self,
        exposition: Callable[[], bytes],
        *,
        health: Check,
        ready: Check,
        host: str,
        port: int,
        state_dir: Path,
        worker: str,
        stages: Sequence[str],
    ) -> None:
        routes: dict[str, Callable[[], tuple[HTTPStatus, str, bytes]]] = {
            "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE_LATEST, exposition()),
            "/health": lambda: _verdict(health()),
            "/ready": lambda: _verdict(ready()),
        }
        handler = type("_BoundHandler", (_Handler,), {"routes": routes})
        try:
            self._server = _Server((host, port), handler)
        except (OSError, OverflowError) as error:
            raise Misconfigured(
                f"MILLSTREAM_METRICS_HOST={host}, MILLSTREAM_METRICS_PORT={port} cannot be bound ({error}); "
                "set a free port, or 0 to have one chosen"
            ) from error
        self.host = host
        self.port = int(self._server.server_address[1])
        self._file = worker_file(state_dir, worker)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        written = self._file.with_suffix(".new")
        written.write_text(
            json.dumps({"host": host, "port": self.port, "pid": os.getpid(), "stages": list(stages)}) + "\n"
        )
        written.replace(self._file)
        threading.Thread(target=self._server.serve_forever, name="telemetry", daemon=True).start()

    def close(self) -> None:
        """Stop serving and remove the worker's file."""
        self._server.shutdown()
        self._server.server_close()
        self._file.unlink(missing_ok=True)


def worker_file(state_dir: Path, worker: str) -> Path:
    """Return the file in which a worker of that name publishes its address and process id."""
    return state_dir / "workers" / f"{quote(worker, safe='')}.json"


class _Server(socketserver.ThreadingTCPServer):
    # Unlike http.server's, this looks no names up when binding.
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exception()
        # Who asks every second has a timeout, and goes when it has passed.
        logger.log(
            logging.DEBUG if isinstance(error, OSError) else logging.ERROR,
            "answering %s: %s", client_address, error, exc_info=error,
        )  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    timeout = 5.0
    routes: Mapping[str, Callable[[], tuple[HTTPStatus, str, bytes]]]

    def do_GET(self) -> None:
        route = self.routes.get(self.path.partition("?")[0])
        if route is None:
            status, kind, body = HTTPStatus.NOT_FOUND, "text/plain", b"/metrics, /health or /ready\n"
        else:
            status, kind, body = route()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: probes come every few seconds."""


def _verdict(reasons: Mapping[str, str]) -> tuple[HTTPStatus, str, bytes]:
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    body = {"status": "failing" if reasons else "ok", "reasons": dict(reasons)}
    return status, "application/json", json.dumps(body).encode() + b"\n"
