"""Faults of workers: killed at chosen points, stopped, paused, coming and going."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from millstream.errors import Stop
from millstream_lab.chaos.fault_context import FaultContext, awaited

SESSION_S = 10.0


def kill_anywhere(arena: FaultContext) -> str:
    """Kill -9 at a random moment."""
    victim = arena.victim()
    arena.wait(0.0, 2.0)
    arena.harm(arena.cluster.kill(victim))
    return victim


def kill_twice(arena: FaultContext) -> str:
    """Kill -9, and again while it starts or recovers."""
    victim = arena.victim()
    arena.cluster.kill(victim)
    arena.wait(0.5, 7.0)
    arena.harm(arena.cluster.kill(victim))
    return victim


def kill_at(point: str) -> Callable[[FaultContext], str]:
    """Return the fault that kills -9 at a point of the code."""

    def fault(arena: FaultContext) -> str:
        cluster, victim = arena.cluster, arena.victim()
        early = point in {"in-recovery", "in-rebalance"}
        number = 1 if early else arena.random.randrange(1, 12)
        cluster.kill(victim, crash=f"{point}:{number}")
        known = cluster.killed(victim)
        if point == "in-rebalance":
            awaited(lambda: cluster.ready(victim), 60)
            cluster.add("guest")
            arena.harm(awaited(lambda: cluster.killed(victim) > known, 60))
            cluster.stop("guest")
            return f"{victim} when the guest came"
        came = awaited(lambda: cluster.killed(victim) > known, 120)
        arena.harm(came)
        if not came:
            cluster.kill(victim)
            return f"{victim}, pass {number} never came; killed"
        return f"{victim}, pass {number}"

    return fault


def zombie(arena: FaultContext) -> str:
    """SIGSTOP a worker beyond its session and its transaction's timeout, then SIGCONT: it must rejoin in place."""
    cluster, victim = arena.cluster, arena.victim()
    awaited(lambda: cluster.ready(victim), 30)
    pid = cluster.pid(victim)
    arena.harm(cluster.signal(victim, signal.SIGSTOP))
    time.sleep(SESSION_S + arena.random.uniform(3.0, 12.0))
    cluster.signal(victim, signal.SIGCONT)
    if awaited(lambda: cluster.pid(victim) != pid, 4):
        raise Stop(f"{victim} exited after it was suspended:\n{cluster.exits[-1].tail}")
    return victim


def starve(arena: FaultContext) -> str:
    """Let a worker run a tenth of the time, in pulses, while another one joins and leaves: it must stay."""
    cluster, victim = arena.cluster, arena.victim()
    awaited(lambda: cluster.ready(victim), 30)
    pid = cluster.pid(victim)
    cluster.add("guest")
    until_s = time.monotonic() + arena.random.uniform(15.0, 25.0)
    while time.monotonic() < until_s:
        arena.harm(cluster.signal(victim, signal.SIGSTOP))
        time.sleep(arena.random.uniform(0.5, 3.0))
        cluster.signal(victim, signal.SIGCONT)
        time.sleep(0.2)
    cluster.stop("guest")
    if awaited(lambda: cluster.pid(victim) != pid, 4):
        raise Stop(f"{victim} exited while it was starved:\n{cluster.exits[-1].tail}")
    return victim


def short_pause(arena: FaultContext) -> str:
    """SIGSTOP a worker for less than its session."""
    victim = arena.victim()
    arena.harm(arena.cluster.signal(victim, signal.SIGSTOP))
    arena.wait(1.0, 6.0)
    arena.cluster.signal(victim, signal.SIGCONT)
    return victim


def terminate(arena: FaultContext) -> str:
    """SIGTERM under load: it must leave with code 0."""
    victim = arena.victim()
    arena.harm(awaited(lambda: arena.cluster.ready(victim), 30))
    code = arena.cluster.stop(victim)
    arena.cluster.add(victim)
    if code != 0:
        raise Stop(f"{victim} left with {code} after SIGTERM:\n{arena.cluster.exits[-1].tail}")
    return victim


def join_and_leave(arena: FaultContext) -> str:
    """A worker joins, works and leaves."""
    arena.cluster.add("guest")
    arena.harm(awaited(lambda: arena.cluster.ready("guest"), 60))
    arena.wait(0.5, 3.0)
    arena.cluster.stop("guest")
    return "guest"


def rolling_restart(arena: FaultContext) -> str:
    """Restart every worker, one after another."""
    names = sorted(arena.cluster.workers)
    for name in names:
        arena.cluster.stop(name)
        arena.cluster.add(name)
        arena.harm(awaited(lambda name=name: arena.cluster.ready(name), 60))  # type: ignore[misc]
    return ", ".join(names)


def crowd(arena: FaultContext) -> str:
    """More workers than partitions."""
    spare = arena.partitions - len(arena.cluster.running())
    guests = [f"guest-{number}" for number in range(1, spare + 2)]
    for guest in guests:
        arena.cluster.add(guest)
    arena.wait(10.0, 20.0)
    count = len(arena.cluster.running())
    arena.harm(count > arena.partitions and awaited(lambda: any(map(arena.cluster.ready, guests)), 60))
    for guest in guests:
        arena.cluster.stop(guest)
    return f"{count} workers for a time"
