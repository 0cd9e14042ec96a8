"""Worker processes (``millstream run ...``): started with a log of their own, probed for readiness, stopped.

The demo, the Python API, the benchmarks and the chaos runs start their workers here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millstream.adapters.telemetry.endpoint import worker_file
from millstream.errors import Stop

READY_S = 300.0
"""How long `wait_until_ready` waits for workers to join and recover, in seconds."""
GRACE_S = 30.0
"""How long a worker may take to leave after SIGTERM before it is killed, in seconds."""

_PROBE_TIMEOUT_S = 5.0
_LOG_LINES = 25


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A started worker.

    Parameters
    ----------
    name : str
        Its worker id (``MILLSTREAM_WORKER_ID`` or ``--worker-id``).
    process : subprocess.Popen
        Leader of a session of its own: Ctrl-C in the terminal does not reach it.
    log : Path
        Its standard output and error.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def check(self) -> None:
        """Raise Stop, with the end of its log, if the worker has ended."""
        code = self.process.poll()
        if code is not None:
            raise Stop(f"worker {self.name} ended with code {code}; the end of {self.log}:\n{last_lines(self.log)}")

    def kill(self) -> None:
        """Send SIGKILL to the worker and its children, and wait until it has ended."""
        if self.process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, grace_s: float = GRACE_S) -> int:
        """Send SIGTERM, after ``grace_s`` seconds SIGKILL; return the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.wait()


def run_command(*arguments: str, module: str = "millstream") -> list[str]:
    """Return the command line of a worker: ``millstream run`` with stages and options.

    ``module`` is the module run in place of ``millstream``: one with the same command line.
    """
    return [sys.executable, "-m", module, "run", *arguments]


def start_worker(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    *,
    directory: Path | None = None,
    append: bool = False,
) -> WorkerProcess:
    """Start a worker.

    Parameters
    ----------
    name : str
        Its worker id. It is not passed on: name it in ``command`` or ``environment``.
    command : sequence of str
        Usually `run_command`.
    environment : mapping of str to str
        All of its environment variables.
    log : Path
        File that receives its standard output and error.
    directory : Path, optional
        Its working directory; by default this process's.
    append : bool
        Append to ``log`` instead of replacing it.
    """
    with log.open("ab" if append else "wb") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
        )
    return WorkerProcess(name, process, log)


@contextmanager
def running_worker(
    name: str, command: Sequence[str], environment: Mapping[str, str], directory: Path
) -> Iterator[WorkerProcess]:
    """Run a worker in ``directory``, with its log there, until the block is left."""
    worker = start_worker(name, command, environment, directory / f"{name}.log", directory=directory)
    try:
        yield worker
    finally:
        worker.stop()


def address_of(state_dir: Path, worker: str, pid: int) -> dict[str, Any] | None:
    """Return ``host``, ``port``, ``pid`` and ``stages`` of a worker's HTTP endpoint; None before it serves."""
    try:
        address: dict[str, Any] = json.loads(worker_file(state_dir, worker).read_text())
    except (FileNotFoundError, ValueError):  # not there yet, or being written
        return None
    return address if address.get("pid") == pid else None


def is_ready(state_dir: Path, worker: str, pid: int, timeout_s: float = _PROBE_TIMEOUT_S) -> bool:
    """Return whether the worker's ``/ready`` probe answers 200: it has joined and recovered its partitions."""
    address = address_of(state_dir, worker, pid)
    if address is None:
        return False
    url = f"http://{address['host']}:{address['port']}/ready"
    try:
        with urllib.request.urlopen(url, timeout=timeout_s):
            return True
    except urllib.error.HTTPError as answer:
        answer.close()
        return False
    except OSError:
        return False


def wait_until_ready(state_dir: Path, workers: Sequence[WorkerProcess], limit_s: float = READY_S) -> None:
    """Wait until every worker is ready.

    Raises
    ------
    Stop
        A worker ended, or is not ready within ``limit_s`` seconds.
    """
    wait_for(workers, lambda: all(is_ready(state_dir, each.name, each.pid) for each in workers), "ready", limit_s)


def wait_for(
    workers: Sequence[WorkerProcess],
    condition: Callable[[], bool],
    what: str,
    limit_s: float = READY_S,
    every_s: float = 0.1,
) -> None:
    """Wait for a condition of running workers; ``what`` names it in the error.

    Raises
    ------
    Stop
        A worker ended, or the condition is not met within ``limit_s`` seconds.
    """
    until_s = time.monotonic() + limit_s
    while not condition():
        for worker in workers:
            worker.check()
        if time.monotonic() > until_s:
            logs = ", ".join(str(worker.log) for worker in workers)
            names = ", ".join(worker.name for worker in workers)
            raise Stop(f"workers {names} were not {what} within {limit_s:.0f} s; see {logs}")
        time.sleep(every_s)


def last_lines(log: Path, lines: int = _LOG_LINES) -> str:
    """Return the last lines of a worker's log, "" if there is none."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""
