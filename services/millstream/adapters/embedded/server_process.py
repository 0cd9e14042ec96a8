"""A server that outlives the command that started it: a session of its own, its log, and a pid that is safe to signal.

A pid file records when the process started besides its number, so that a number the system has given to another process
since is never signalled.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from millstream.errors import Stop

_POLL_S = 0.05


class PortTaken(Stop):
    """Another process listens on the server's port."""


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """One server's files.

    Parameters
    ----------
    name : str
        For messages, e.g. ``"embedded Kafka"``.
    directory : Path
        Its own directory, absolute; holds ``server.pid`` and the logs.
    logs : tuple of Path
        What to show when it fails, most telling last. A start sets them aside as ``*.previous``.
    """

    name: str
    directory: Path
    logs: tuple[Path, ...]

    @property
    def pid_file(self) -> Path:
        """Where the pid and start time are."""
        return self.directory / "server.pid"

    def spawn(self, command: Sequence[str], output: Path) -> int:
        """Start ``command`` detached, its output into ``output`` (one of ``logs``); return its pid."""
        for log in self.logs:
            if log.exists():
                log.replace(log.with_name(log.name + ".previous"))
        # The shell in between is the new session's leader and leaves at once, so the server has no parent here and
        # needs no reaping, and a Ctrl-C in the terminal does not reach it.
        script = 'output=$1; shift; "$@" </dev/null >"$output" 2>&1 & echo $!'
        shell = subprocess.run(
            ["/bin/sh", "-c", script, "sh", str(output), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            cwd=self.directory,
            start_new_session=True,
            check=True,
            text=True,
        )
        pid = int(shell.stdout)
        written = self.pid_file.with_suffix(".new")
        written.write_text(json.dumps({"pid": pid, "started": start_mark(pid)}))
        written.replace(self.pid_file)
        return pid

    def pid(self) -> int | None:
        """Return the pid if the recorded process still runs, else None."""
        try:
            known = json.loads(self.pid_file.read_text())
            pid, started = int(known["pid"]), known["started"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return pid if started is not None and start_mark(pid) == started else None

    def stop(self, grace_s: float) -> bool:
        """Ask the server to leave, and after ``grace_s`` seconds make it; return whether one was running."""
        pid = self.pid()
        if pid is None:
            self.pid_file.unlink(missing_ok=True)
            return False
        for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 10.0)):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                break
            if self._gone(patience_s):
                break
        else:
            raise Stop(f"{self.name} (pid {pid}) does not end, not even when killed; see `ps -p {pid}`")
        self.pid_file.unlink(missing_ok=True)
        return True

    def _gone(self, patience_s: float) -> bool:
        deadline = time.monotonic() + patience_s
        while self.pid() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def failure(self, what: str) -> Stop:
        """Return the error to raise when the server did not come up, with the end of its logs."""
        logs = [log for log in self.logs if log.exists()]
        ends = "".join(f"\n--- {log} ---\n{tail(log)}" for log in logs)
        if any("Address already in use" in log.read_text(errors="replace") for log in logs):
            return PortTaken(f"the {self.name} {what}: its port is taken{ends}")
        return Stop(f"the {self.name} {what}{ends}")


def start_mark(pid: int) -> str | None:
    """Return a mark of when the process started, None if there is no such process (or only its zombie).

    With the pid it identifies a process for good: on Linux the boot's id and the start in clock ticks since boot
    (proc(5), ``/proc/pid/stat`` field 22), elsewhere the start date that ``ps`` prints.
    """
    stat = Path(f"/proc/{pid}/stat")
    boot = Path("/proc/sys/kernel/random/boot_id")
    if boot.exists():
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else f"{boot.read_text().strip()} {fields[19]}"
    listed = subprocess.run(
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)], stdout=subprocess.PIPE, text=True, check=False
    ).stdout.split(maxsplit=1)
    return None if not listed or listed[0].startswith("Z") else listed[1].strip()


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a text file, "" if there is none."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16_384))
        return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
