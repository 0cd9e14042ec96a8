"""CPU time and resident memory of a process, of its descendants as well where required."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process tree at one moment.

    Parameters
    ----------
    cpu_s : float
        User and system seconds since each process began. Resolution: 10 ms.
    rss_bytes : int
        Resident memory; pages shared between processes count in each.
    """

    cpu_s: float
    rss_bytes: int


def own_rss_bytes() -> int:
    """Return this process's resident memory, in bytes."""
    return usage_of(os.getpid(), with_children=False).rss_bytes


def usage_of(pid: int, with_children: bool = True) -> Usage:
    """Return what a process and its living descendants use; zeros if it has ended."""
    try:
        process = psutil.Process(pid)
        processes = [process, *(process.children(recursive=True) if with_children else ())]
    except psutil.NoSuchProcess:
        return Usage(0.0, 0)
    cpu_s, rss_bytes = 0.0, 0
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess), each.oneshot():  # it may end while it is read
            times = each.cpu_times()
            cpu_s += times.user + times.system
            rss_bytes += each.memory_info().rss
    return Usage(cpu_s, rss_bytes)
