"""Workers as an operator starts them, and topics as a subscriber reads them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Message

from millstream.adapters.kafka.client import read_committed
from millstream.adapters.kafka.topics import partition_counts
from millstream.app.worker_processes import WorkerProcess, is_ready, last_lines, run_command, start_worker

_PATIENCE = 4


@dataclass
class Workers:
    """``millstream run`` processes on one state directory; ended with the test."""

    state_dir: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    running: dict[str, WorkerProcess] = field(default_factory=dict)

    def start(self, name: str, stages: Sequence[str] = ()) -> None:
        """Start a worker of that name; its output goes to a log beside the state."""
        environment = {
            **os.environ,
            "MILLSTREAM_STATE_DIR": str(self.state_dir),
            "MILLSTREAM_WORKER_ID": name,
            **self.environment,
        }
        self.running[name] = start_worker(name, run_command(*stages), environment, self.log(name), append=True)

    def log(self, name: str) -> Path:
        return self.state_dir / f"{name}.log"

    def kill(self, name: str) -> None:
        """kill -9, and gone."""
        worker = self.running.pop(name)
        assert worker.process.poll() is None, f"{name} was gone before it was killed:\n{self.tail(name)}"
        worker.kill()

    def ready(self, name: str) -> bool:
        """Whether the worker has joined and recovered, as its own probe says."""
        return is_ready(self.state_dir, name, self.running[name].pid)

    def stop(self, name: str, deadline_s: float = 120) -> int:
        """SIGTERM; return the exit code."""
        process = self.running.pop(name).process
        process.terminate()
        return process.wait(deadline_s)

    def alive(self) -> None:
        """Fail, with its log, if a worker has left on its own."""
        for name, worker in self.running.items():
            code = worker.process.poll()
            assert code is None, f"{name} left with {code}:\n{self.tail(name)}"

    def tail(self, name: str) -> str:
        return last_lines(self.log(name), 40)

    def end(self) -> None:
        for worker in self.running.values():
            worker.kill()
        self.running.clear()


def committed(kafka: Mapping[str, str], topic: str) -> list[Message]:
    """Return every committed record of a topic, partition by partition."""
    count = partition_counts(kafka, [topic])[topic]
    return [
        message
        for partition in range(count)
        for messages in read_committed(kafka, topic, partition, 0, None)
        for message in messages
    ]


def wait_until(condition: object, seconds: float, workers: Workers | None = None) -> None:
    """Ask until the condition holds; fail after a generous deadline, more so on a machine that is slow or shared."""
    assert callable(condition)
    deadline_s = time.monotonic() + _PATIENCE * seconds
    while not condition():
        if workers is not None:
            workers.alive()
        logs = "\n".join(f"--- {name}\n{workers.tail(name)}" for name in workers.running) if workers else ""
        assert time.monotonic() < deadline_s, f"did not come true within {_PATIENCE * seconds} s\n{logs}"
        time.sleep(0.2)
