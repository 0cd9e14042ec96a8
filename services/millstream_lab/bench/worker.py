"""Worker processes, started, watched and stopped by the benchmark."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from millstream.errors import Stop
from millstream_lab.bench import scrape
from millstream_lab.bench.stack import Job

_STOP_S = 25.0
_READY_S = 90.0
_TAIL_LINES = 25


class BenchWorker:
    """One running worker; its output goes to ``log``."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._log = log

    def alive(self) -> None:
        """Raise Stop with the end of its output if the worker has ended."""
        code = self._process.poll()
        if code is not None:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
            raise Stop(f"the {self.name} worker ended with code {code}:\n{tail}")

    def kill(self) -> None:
        """kill -9, and gone."""
        os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


@contextmanager
def running(name: str, command: Sequence[str], environ: Mapping[str, str], directory: Path) -> Iterator[BenchWorker]:
    """Run a worker in ``directory`` until the block is left."""
    log = directory / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=dict(environ), cwd=directory,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield BenchWorker(name, process, log)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                # A worker far behind may take for ever to drain; nobody needs it any more.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@dataclass(frozen=True)
class Crew:
    """Workers of one job."""

    job: Job
    workers: tuple[BenchWorker, ...]

    @property
    def pids(self) -> dict[str, int]:
        """By worker name."""
        return {worker.name: worker.pid for worker in self.workers}

    def alive(self) -> None:
        """Raise Stop if one has ended."""
        for worker in self.workers:
            worker.alive()

    def metrics(self) -> dict[str, dict[str, float]]:
        """Return each worker's metrics; see `scrape.metrics`."""
        return {name: scrape.metrics(self.job.stack.state_dir, name, pid) for name, pid in self.pids.items()}

    def total(self, metric: str) -> float:
        """Return a metric summed over workers and labels."""
        return sum(each.get(metric, 0.0) for each in self.metrics().values())

    def wait_ready(self) -> None:
        """Wait until every worker has joined and recovered."""
        state_dir = self.job.stack.state_dir
        self.wait(lambda: all(scrape.ready(state_dir, name, pid) for name, pid in self.pids.items()), "ready")

    def wait(self, condition: Callable[[], bool], what: str, limit_s: float = _READY_S, every_s: float = 0.1) -> None:
        """Wait for a condition.

        Raises
        ------
        Stop
            A worker ended, or it takes too long.
        """
        until_s = time.monotonic() + limit_s
        while not condition():
            self.alive()
            if time.monotonic() > until_s:
                raise Stop(f"workers {', '.join(self.pids)} were not {what} within {limit_s:.0f} s")
            time.sleep(every_s)


def own_command(stages: Sequence[str]) -> list[str]:
    """Return how one of our workers is started."""
    return [sys.executable, "-m", "millstream", "run", *stages]


@contextmanager
def crew(job: Job, layout: Mapping[str, Sequence[str]], wait: bool = True) -> Iterator[Crew]:
    """Run workers by name, each with its stages (none named: all); with ``wait``, go on once all are ready."""
    with ExitStack() as stack:
        directory = job.stack.state_dir
        workers = tuple(
            stack.enter_context(running(name, own_command(stages), job.environ(name), directory))
            for name, stages in layout.items()
        )
        made = Crew(job, workers)
        if wait:
            made.wait_ready()
        yield made
