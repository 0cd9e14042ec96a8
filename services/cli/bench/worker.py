"""A side's worker process, started and stopped by the benchmark."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from services.errors import Stop

_STOP_S = 25.0
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
