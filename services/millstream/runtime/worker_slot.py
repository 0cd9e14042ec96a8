"""A stable name for this worker: the first free slot of this machine.

A transactional id must be the same after a restart, so that what a crash left open is aborted at once, and must
differ between workers that run at the same time. A lock file per slot gives both: the lock dies with the process.
"""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import IO


class WorkerSlot:
    """Holds a slot until `release` or the end of the process.

    Parameters
    ----------
    directory : Path
        Where the lock files are.
    name : str or None
        A name given by the operator is used as it is, unlocked: two workers of one name fence each other.
    """

    def __init__(self, directory: Path, name: str | None = None) -> None:
        self._lock: IO[str] | None = None
        if name is not None:
            self.name = name
            return
        directory.mkdir(parents=True, exist_ok=True)
        number = 0
        while True:
            lock = (directory / f"slot-{number}.lock").open("a+")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                lock.close()
                number += 1
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock
        self.name = f"{socket.gethostname()}-{number}"

    def release(self) -> None:
        """Free the slot."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
