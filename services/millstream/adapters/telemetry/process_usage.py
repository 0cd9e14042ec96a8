"""What a process uses: resident memory and CPU time, its descendants' included where asked."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


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
    """Return this process's resident memory."""
    return usage_of(os.getpid(), with_children=False).rss_bytes


def usage_of(pid: int, with_children: bool = True) -> Usage:
    """Return what a process and its living descendants use; zeros if it is gone."""
    table = _from_proc() if _PROC.joinpath("self", "stat").exists() else _from_ps()
    wanted = {pid}
    if with_children:
        grown = True
        while grown:
            more = {child for child, (parent, _usage) in table.items() if parent in wanted} - wanted
            wanted |= more
            grown = bool(more)
    found = [table[each][1] for each in wanted if each in table]
    return Usage(sum(each.cpu_s for each in found), sum(each.rss_bytes for each in found))


def _from_proc() -> dict[int, tuple[int, Usage]]:
    tick_s, page_bytes = 1 / os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    table = {}
    for directory in _PROC.iterdir():
        if not directory.name.isdigit():
            continue
        try:
            # The command's name, in parentheses, may hold anything; fields are counted from behind it.
            fields = directory.joinpath("stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        usage = Usage((int(fields[11]) + int(fields[12])) * tick_s, int(fields[21]) * page_bytes)
        table[int(directory.name)] = (int(fields[1]), usage)
    return table


def _from_ps() -> dict[int, tuple[int, Usage]]:
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,rss=,time="], capture_output=True, text=True, check=True
    ).stdout
    table = {}
    for line in listing.splitlines():
        pid, parent, rss_kib, clock = line.split()
        table[int(pid)] = (int(parent), Usage(clock_seconds(clock), int(rss_kib) * 1024))
    return table


def clock_seconds(clock: str) -> float:
    """Return the seconds of ``[[days-]hours:]minutes:seconds[.fraction]``.

    Examples
    --------
    >>> clock_seconds("1:02.50")
    62.5
    >>> clock_seconds("1-00:00:01")
    86401.0
    """
    days, _dash, rest = clock.rpartition("-")
    seconds = 0.0
    for part in rest.split(":"):
        seconds = seconds * 60 + float(part)
    return int(days or 0) * 86_400 + seconds
