"""Disks small enough to be filled: tmpfs mounts in a mount namespace of our own (Linux).

`enter` starts the command again inside such a namespace; mounts made there are gone with it.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

from millstream.errors import Stop

INSIDE = "MILLSTREAM_CHAOS_NAMESPACE"
_BALLAST = "ballast"


def available() -> bool:
    """Return whether this process may mount."""
    return os.environ.get(INSIDE) == "1"


def enter() -> None:
    """Become the same command inside a new user and mount namespace, if the system lets us; else return."""
    unshare = shutil.which("unshare")
    if available() or unshare is None:
        return
    prefix = [unshare, "--user", "--map-root-user", "--mount"]
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
        os.environ[INSIDE] = "1"
        os.execv(unshare, [*prefix, sys.executable, "-m", "millstream", *sys.argv[1:]])


def mount(directory: Path, megabytes: int) -> None:
    """Put an empty disk of that size at a directory.

    Raises
    ------
    Stop
        The system does not let us.
    """
    directory.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Stop(f"cannot mount a small disk at {directory}: {done.stderr.strip()}")


def fill(directory: Path) -> int:
    """Fill the disk to the last byte; return how many it took.

    Raises
    ------
    Stop
        It is not a disk that `mount` made.
    """
    if not directory.is_mount():
        raise Stop(f"{directory} is not a small disk of ours")
    # Written, not only allocated: a kernel short of memory takes pages back that were never written.
    block = b"ballast." * (1 << 17)
    with (directory / _BALLAST).open("ab", buffering=0) as file:
        while block:
            try:
                file.write(block)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                block = block[: len(block) // 2]
    return (directory / _BALLAST).stat().st_size


def free(directory: Path) -> int:
    """Return how many bytes the disk has left."""
    at = os.statvfs(directory)
    return at.f_bavail * at.f_frsize


def empty(directory: Path) -> None:
    """Give the space back."""
    (directory / _BALLAST).unlink(missing_ok=True)
