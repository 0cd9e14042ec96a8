"""Workers as child processes: ``millstream run``, as an operator would start it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from millstream.adapters.telemetry.endpoint import worker_file
from millstream.app.assembly import Assembly
from millstream.errors import Stop
from millstream.project_file import FOLDER_VARIABLE
from millstream.settings import Settings, environment_of
from millstream.topology import MEASURE, MONITOR

_READY_S = 300
_LEAVE_S = 30
_LABELS_CHECKPOINT_MS = "2000"
"""How often snapshots and figures come where the settings do not say: a second of the demo is hours of its events."""


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """One worker, its log, and the file with the address of its metrics."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    address: Path

    def check(self) -> None:
        """Raise Stop, with the end of its log, if the worker has left."""
        if self.process.poll() is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise Stop(f"worker {self.name} left with code {self.process.returncode}; the end of {self.log}:\n{tail}")

    def ready(self) -> bool:
        """Return whether it has joined and recovered its partitions."""
        try:
            told = json.loads(self.address.read_text())
            url = f"http://{told['host']}:{told['port']}/ready"
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(told["pid"] == self.process.pid and answer.status == 200)
        except (urllib.error.URLError, OSError, ValueError):
            return False  # not there yet: asked again until the deadline

    def end(self) -> None:
        """Ask it to leave, and wait; then insist."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_LEAVE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def _shares(assembly: Assembly) -> dict[str, list[str]]:
    """Return the stages of each worker: one each on the way to the answer, one for what labels do, one for alerts."""
    from millstream.app.stage_registry import usual_stages

    shares = {plan.name: [plan.name] for plan in assembly.topology.stages}
    rest = [name for name in usual_stages(assembly) if name not in shares]
    alerts = [name for name in rest if name in {MEASURE, MONITOR}]
    agents = [plan.name for plan in assembly.topology.agents]
    labels = [name for name in rest if name not in {*alerts, *agents}]
    more = {"labels": labels, "alerts": alerts, "agents": agents}
    return shares | {name: stages for name, stages in more.items() if stages}


def start_workers(
    settings: Settings, assembly: Assembly, stack: ExitStack, prefix: str = "demo", stages: Sequence[str] = ()
) -> list[WorkerProcess]:
    """Start the workers, ended with ``stack``, and wait until each is ready.

    Parameters
    ----------
    prefix : str
        Of the workers' names.
    stages : sequence of str
        The stages to run, all in one worker; default: all, in several workers.

    Raises
    ------
    Stop
        One left or did not become ready; shows the end of its log.
    """
    directory = settings.state_dir.resolve() / "workers"
    directory.mkdir(parents=True, exist_ok=True)
    workers = []
    shares = {"stages": list(stages)} if stages else _shares(assembly)
    for title, share in shares.items():
        name = f"{prefix}-{title}"
        path = directory / f"{name}.log"
        log = stack.enter_context(path.open("wb"))
        # The worker has these settings whatever its environment, its working directory and the project's file say.
        environment = {**os.environ, **environment_of(settings), FOLDER_VARIABLE: ""}
        if title not in share:
            environment.setdefault("MILLSTREAM_CHECKPOINT_INTERVAL_MS", _LABELS_CHECKPOINT_MS)
        command = [sys.executable, "-m", "millstream", "run", *share, "--worker-id", name]
        # A session of its own: Ctrl-C is for this process, which then ends its workers in order.
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        worker = WorkerProcess(title, process, path, worker_file(settings.state_dir.resolve(), name))
        stack.callback(worker.end)
        workers.append(worker)
    deadline_s = time.monotonic() + _READY_S
    for worker in workers:
        while not worker.ready():
            worker.check()
            if time.monotonic() > deadline_s:
                raise Stop(f"worker {worker.name} was not ready within {_READY_S} s; see {worker.log}")
            time.sleep(0.1)
    return workers
