"""Worker processes of one benchmark job: start, metrics and waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from millstream.app.worker_processes import WorkerProcess, is_ready, run_command, running_worker, wait_for
from millstream_lab.bench import scrape
from millstream_lab.bench.stack import Job

_READY_S = 90.0


@dataclass(frozen=True)
class WorkerGroup:
    """Workers of one job."""

    job: Job
    workers: tuple[WorkerProcess, ...]

    @property
    def pids(self) -> dict[str, int]:
        """By worker name."""
        return {worker.name: worker.pid for worker in self.workers}

    def check(self) -> None:
        """Raise Stop if one has ended."""
        for worker in self.workers:
            worker.check()

    def metrics(self) -> dict[str, dict[str, float]]:
        """Return each worker's metrics; see `scrape.metrics`."""
        return {name: scrape.metrics(self.job.stack.state_dir, name, pid) for name, pid in self.pids.items()}

    def total(self, metric: str) -> float:
        """Return a metric summed over workers and labels."""
        return sum(each.get(metric, 0.0) for each in self.metrics().values())

    def wait_ready(self) -> None:
        """Wait until every worker has joined and recovered."""
        state_dir = self.job.stack.state_dir
        self.wait(lambda: all(is_ready(state_dir, name, pid) for name, pid in self.pids.items()), "ready")

    def wait(self, condition: Callable[[], bool], what: str, limit_s: float = _READY_S, every_s: float = 0.1) -> None:
        """Wait for a condition; see `wait_for`."""
        wait_for(self.workers, condition, what, limit_s, every_s)


@contextmanager
def running_group(job: Job, layout: Mapping[str, Sequence[str]], wait: bool = True) -> Iterator[WorkerGroup]:
    """Run workers by name, each with its stages (none named: all); with ``wait``, continue once all are ready."""
    with ExitStack() as stack:
        directory = job.stack.state_dir
        workers = tuple(
            stack.enter_context(running_worker(name, run_command(*stages), job.environ(name), directory))
            for name, stages in layout.items()
        )
        started = WorkerGroup(job, workers)
        if wait:
            started.wait_ready()
        yield started
