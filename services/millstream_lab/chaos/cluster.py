"""The cluster of a chaos run: a broker, a Valkey and workers of its own, behind links in which faults are injected.

Workers that end are started again, as an orchestrator would; each ending is kept with its exit code.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from millstream.adapters.embedded.kafka import EmbeddedKafka
from millstream.adapters.embedded.valkey import EmbeddedValkey
from millstream.app.worker_processes import WorkerProcess, is_ready, last_lines, run_command, start_worker
from millstream.errors import Stop
from millstream.settings import Settings, load_settings
from millstream_lab.bench.sides import own_environ
from millstream_lab.chaos import small_disk
from millstream_lab.chaos.faulty_worker import CLOCK, CRASH
from millstream_lab.chaos.registry_stub import RegistryStub

HOST = "127.0.0.1"
KAFKA, VALKEY = 0, 1
_RESTART_S = 0.5
_LEAVE_S = 40.0


class AdvertisedKafka(EmbeddedKafka):
    """A broker that clients reach through a link: it advertises the link's port."""

    def _configure(self, file: str, data: Path) -> None:
        super()._configure(file, data)
        links = self.directory.parent / "links.json"
        if links.exists():
            port = json.loads(links.read_text())[KAFKA]
            path = self.directory / file
            text = path.read_text().replace(
                f"advertised.listeners=BROKER://{HOST}:{self.port}", f"advertised.listeners=BROKER://{HOST}:{port}"
            )
            path.write_text(text)


@dataclass(frozen=True, slots=True)
class Exit:
    """A worker process that ended: which, with what code (negative: by that signal), and the last lines of its log."""

    worker: str
    code: int
    at_s: float
    tail: str


@dataclass
class Worker:
    """A worker the cluster keeps running."""

    name: str
    log: Path
    process: WorkerProcess | None = None
    started_s: float = 0.0


@dataclass
class Cluster:
    """Servers, links and workers in one directory; `start` it, `end` it.

    Parameters
    ----------
    directory : Path
        Empty, absolute.
    ports : list of int
        For the broker, its controller and Valkey.
    environ : dict of str to str
        ``MILLSTREAM_*`` settings of the workers besides the endpoints.
    """

    directory: Path
    ports: list[int]
    environ: dict[str, str] = field(default_factory=dict)
    exits: list[Exit] = field(default_factory=list)
    expected_exits: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.kafka_server = AdvertisedKafka(self.directory / "kafka", self.ports[0], self.ports[1])
        self.valkey_server = EmbeddedValkey(self.directory / "valkey", self.ports[2])
        self.registry = RegistryStub()
        self.workers: dict[str, Worker] = {}
        self.clock = self.directory / "clock"
        self._link: subprocess.Popen[str] | None = None
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)

    def start(self, say: Callable[[str], None]) -> Settings:
        """Start servers and links, and return the settings that reach them through the links."""
        if small_disk.available():
            for name, megabytes in (("kafka", 6_000), ("valkey", 512), ("state/workers", 256)):
                small_disk.mount(self.directory / name, megabytes)
        command = [sys.executable, "-m", "millstream_lab.chaos.link", str(self.ports[0]), str(self.ports[2])]
        self._link = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self._link.stdout is not None
        links = json.loads(self._link.stdout.readline())
        (self.directory / "links.json").write_text(json.dumps(links))
        self.registry.serve()
        self.valkey_server.start(say)
        self.kafka_server.start(say)
        self.environ |= {
            # Small: full ones, after a fault, are what the loop goes on behind while a transaction is written.
            "MILLSTREAM_BATCH_RECORDS": "50",
            "MILLSTREAM_STATE_DIR": str(self.directory / "state"),
            "MILLSTREAM_KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{links[KAFKA]}",
            "MILLSTREAM_REDIS_URL": f"redis://{HOST}:{links[VALKEY]}/0",
            "MILLSTREAM_SCHEMA_REGISTRY_URL": self.registry.url,
        }
        # Settings are read from the environment in many places; the operator's endpoints must not be among them.
        os.environ.update(self.environ)
        self._supervisor.start()
        return load_settings()

    def link(self, number: int, mode: str, **more: int) -> int:
        """Make a link good (``open``) or bad; return how many pieces or connections the mode before has harmed."""
        assert self._link is not None
        assert self._link.stdin is not None
        assert self._link.stdout is not None
        self._link.stdin.write(json.dumps({"link": number, "mode": mode, **more}) + "\n")
        self._link.stdin.flush()
        return int(json.loads(self._link.stdout.readline())["harmed"])

    def add(self, name: str, crash: str | None = None) -> None:
        """Start a worker and keep it running."""
        with self._lock:
            worker = self.workers.setdefault(name, Worker(name, self.directory / f"{name}.log"))
            self._spawn(worker, crash)

    def _spawn(self, worker: Worker, crash: str | None = None) -> None:
        environ = {**own_environ(), **self.environ, CLOCK: str(self.clock), "MILLSTREAM_WORKER_ID": worker.name}
        if crash is not None:
            environ[CRASH] = crash
        command = run_command(module="millstream_lab.chaos.faulty_worker")
        worker.process = start_worker(worker.name, command, environ, worker.log, append=True)
        worker.started_s = time.monotonic()

    def pid(self, name: str) -> int | None:
        """Return a worker's process id while it runs."""
        worker = self.workers[name].process
        return worker.pid if worker is not None and worker.process.poll() is None else None

    def running(self) -> list[str]:
        """Return the names of the workers whose process runs."""
        with self._lock:
            return [name for name in self.workers if self.pid(name) is not None]

    def signal(self, name: str, number: int) -> bool:
        """Send a worker a signal; return whether it was running."""
        with self._lock:
            pid = self.pid(name)
            if pid is None:
                return False
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            return True

    def kill(self, name: str, crash: str | None = None) -> bool:
        """Kill -9; start it again, perhaps with a crash point. Return whether it was running."""
        with self._lock:
            was_there = self._end(name, signal.SIGKILL)
            self._spawn(self.workers[name], crash)
        return was_there

    def stop(self, name: str) -> int:
        """SIGTERM and wait; the worker is no longer kept. Returns its exit code."""
        with self._lock:
            worker = self.workers.pop(name)
        assert worker.process is not None
        process = worker.process.process
        process.terminate()
        code = process.wait(_LEAVE_S)
        self.exits.append(Exit(name, code, time.time(), last_lines(worker.log)))
        return code

    def forget(self, name: str) -> None:
        """Kill a worker and keep it no longer."""
        with self._lock:
            self._end(name, signal.SIGKILL)
            del self.workers[name]

    def _end(self, name: str, number: int) -> bool:
        worker = self.workers[name].process
        if worker is None or worker.process.poll() is not None:
            return False
        process = worker.process
        process.send_signal(number)
        process.wait(_LEAVE_S)
        self.exits.append(Exit(name, process.returncode, time.time(), ""))
        return True

    def killed(self, name: str) -> int:
        """Return how often a worker has ended by SIGKILL, its own or ours."""
        return sum(each.worker == name and each.code == -signal.SIGKILL for each in self.exits)

    def count_in_logs(self, words: str) -> int:
        """Return how often a text occurs in the workers' logs."""
        return sum(log.read_text(errors="replace").count(words) for log in self.directory.glob("*.log"))

    def ready(self, name: str) -> bool:
        """Return whether a worker's readiness probe reports that it has joined and recovered."""
        pid = self.pid(name)
        return pid is not None and is_ready(self.directory / "state", name, pid, timeout_s=1)

    def _supervise(self) -> None:
        while not self._ending.wait(0.1):
            with self._lock:
                for worker in self.workers.values():
                    code = None if worker.process is None else worker.process.process.poll()
                    if code is None:
                        continue
                    self.exits.append(Exit(worker.name, code, time.time(), last_lines(worker.log)))
                    worker.process = None
                due = [w for w in self.workers.values() if w.process is None]
                for worker in due:
                    if time.monotonic() - worker.started_s > _RESTART_S:
                        self._spawn(worker)

    def end(self) -> None:
        """End everything that runs."""
        self._ending.set()
        self._supervisor.join()
        for name in list(self.workers):
            pid = self.pid(name)
            if pid is not None:
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGKILL)
        for server in (self.kafka_server, self.valkey_server):
            pid = server.process.pid()
            if pid is not None:
                os.kill(pid, signal.SIGCONT)
            server.stop()
        self.registry.shutdown()
        self.registry.server_close()
        if self._link is not None:
            self._link.terminate()
            self._link.communicate()

    def server_pid(self, server: EmbeddedKafka | EmbeddedValkey) -> int:
        """Return a server's process id.

        Raises
        ------
        Stop
            It does not run.
        """
        pid = server.process.pid()
        if pid is None:
            raise Stop(f"the {server.process.name} is not running")
        return pid
