"""Faults of workers: killed at chosen points, stopped, paused, coming and going."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from millstream.errors import Stop
from millstream_lab.chaos.fault_context import FaultContext, awaited

SESSION_S = 10.0


def kill_anywhere(context: FaultContext) -> str:
    """Kill -9 at a random moment."""
    target = context.target()
    context.wait(0.0, 2.0)
    context.harm(context.cluster.kill(target))
    return target


def kill_twice(context: FaultContext) -> str:
    """Kill -9, and again while it starts or recovers."""
    target = context.target()
    context.cluster.kill(target)
    context.wait(0.5, 7.0)
    context.harm(context.cluster.kill(target))
    return target


def kill_at(point: str) -> Callable[[FaultContext], str]:
    """Return the fault that kills -9 at a point of the code."""

    def fault(context: FaultContext) -> str:
        cluster, target = context.cluster, context.target()
        early = point in {"in-recovery", "in-rebalance"}
        number = 1 if early else context.random.randrange(1, 12)
        cluster.kill(target, crash=f"{point}:{number}")
        known = cluster.killed(target)
        if point == "in-rebalance":
            awaited(lambda: cluster.ready(target), 60)
            cluster.add("guest")
            context.harm(awaited(lambda: cluster.killed(target) > known, 60))
            cluster.stop("guest")
            return f"{target} when the guest came"
        came = awaited(lambda: cluster.killed(target) > known, 120)
        context.harm(came)
        if not came:
            cluster.kill(target)
            return f"{target}, pass {number} never came; killed"
        return f"{target}, pass {number}"

    return fault


def zombie(context: FaultContext) -> str:
    """SIGSTOP a worker beyond its session and its transaction's timeout, then SIGCONT: it must rejoin in place."""
    cluster, target = context.cluster, context.target()
    awaited(lambda: cluster.ready(target), 30)
    pid = cluster.pid(target)
    context.harm(cluster.signal(target, signal.SIGSTOP))
    time.sleep(SESSION_S + context.random.uniform(3.0, 12.0))
    cluster.signal(target, signal.SIGCONT)
    if awaited(lambda: cluster.pid(target) != pid, 4):
        raise Stop(f"{target} exited after it was suspended:\n{cluster.exits[-1].tail}")
    return target


def starve(context: FaultContext) -> str:
    """Let a worker run a tenth of the time, in pulses, while another one joins and leaves: it must stay."""
    cluster, target = context.cluster, context.target()
    awaited(lambda: cluster.ready(target), 30)
    pid = cluster.pid(target)
    cluster.add("guest")
    until_s = time.monotonic() + context.random.uniform(15.0, 25.0)
    while time.monotonic() < until_s:
        context.harm(cluster.signal(target, signal.SIGSTOP))
        time.sleep(context.random.uniform(0.5, 3.0))
        cluster.signal(target, signal.SIGCONT)
        time.sleep(0.2)
    cluster.stop("guest")
    if awaited(lambda: cluster.pid(target) != pid, 4):
        raise Stop(f"{target} exited while it was starved:\n{cluster.exits[-1].tail}")
    return target


def short_pause(context: FaultContext) -> str:
    """SIGSTOP a worker for less than its session."""
    target = context.target()
    context.harm(context.cluster.signal(target, signal.SIGSTOP))
    context.wait(1.0, 6.0)
    context.cluster.signal(target, signal.SIGCONT)
    return target


def terminate(context: FaultContext) -> str:
    """SIGTERM under load: it must leave with code 0."""
    target = context.target()
    context.harm(awaited(lambda: context.cluster.ready(target), 30))
    code = context.cluster.stop(target)
    context.cluster.add(target)
    if code != 0:
        raise Stop(f"{target} left with {code} after SIGTERM:\n{context.cluster.exits[-1].tail}")
    return target


def join_and_leave(context: FaultContext) -> str:
    """A worker joins, works and leaves."""
    context.cluster.add("guest")
    context.harm(awaited(lambda: context.cluster.ready("guest"), 60))
    context.wait(0.5, 3.0)
    context.cluster.stop("guest")
    return "guest"


def rolling_restart(context: FaultContext) -> str:
    """Restart every worker, one after another."""
    names = sorted(context.cluster.workers)
    for name in names:
        context.cluster.stop(name)
        context.cluster.add(name)
        context.harm(awaited(lambda name=name: context.cluster.ready(name), 60))  # type: ignore[misc]
    return ", ".join(names)


def crowd(context: FaultContext) -> str:
    """More workers than partitions."""
    spare = context.partitions - len(context.cluster.running())
    guests = [f"guest-{number}" for number in range(1, spare + 2)]
    for guest in guests:
        context.cluster.add(guest)
    context.wait(10.0, 20.0)
    count = len(context.cluster.running())
    context.harm(count > context.partitions and awaited(lambda: any(map(context.cluster.ready, guests)), 60))
    for guest in guests:
        context.cluster.stop(guest)
    return f"{count} workers for a time"
