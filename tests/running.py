"""Workers as an operator starts them, and topics as a subscriber reads them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Message

from millstream.adapters.kafka.client import read_committed
from millstream.adapters.kafka.topics import partition_counts

_PATIENCE = 4


@dataclass
class Workers:
    """``millstream run`` processes on one state directory; ended with the test."""

    state_dir: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, stages: Sequence[str] = ()) -> None:
        """Start a worker of that name; its output goes to a log beside the state."""
        environment = {
            **os.environ,
            "MILLSTREAM_STATE_DIR": str(self.state_dir),
            "MILLSTREAM_WORKER_ID": name,
            **self.environment,
        }
        with self.log(name).open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "millstream", "run", *stages], stdout=log, stderr=log, env=environment
            )

    def log(self, name: str) -> Path:
        return self.state_dir / f"{name}.log"

    def kill(self, name: str) -> None:
        """kill -9, and gone."""
        process = self.running.pop(name)
        assert process.poll() is None, f"{name} was gone before it was killed:\n{self.tail(name)}"
        process.kill()
        process.wait()

    def ready(self, name: str) -> bool:
        """Whether the worker has joined and recovered, as its own probe says."""
        try:
            told = json.loads((self.state_dir / "workers" / f"{name}.json").read_text())
            with urllib.request.urlopen(f"http://{told['host']}:{told['port']}/ready", timeout=5) as answer:
                return bool(told["pid"] == self.running[name].pid and answer.status == 200)
        except (OSError, ValueError):
            return False

    def stop(self, name: str, deadline_s: float = 120) -> int:
        """SIGTERM; return the exit code."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(deadline_s)

    def alive(self) -> None:
        """Fail, with its log, if a worker has left on its own."""
        for name, process in self.running.items():
            assert process.poll() is None, f"{name} left with {process.poll()}:\n{self.tail(name)}"

    def tail(self, name: str) -> str:
        return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-40:])

    def end(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()
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
