"""Faults of what workers depend on: the broker, Redis, the links to them, and disks."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from millstream_lab.chaos import small_disk
from millstream_lab.chaos.cluster import KAFKA, VALKEY
from millstream_lab.chaos.fault_context import FaultContext


def broker_kill(context: FaultContext) -> str:
    """Kill -9 the broker and start it again."""
    server = context.cluster.kafka_server
    context.harm(server.process.pid() is not None)
    server.process.stop(0.0)
    context.wait(0.0, 4.0)
    server.start(lambda _step: None)
    return "down and up"


def broker_restart(context: FaultContext) -> str:
    """Stop the broker in an orderly way and start it again."""
    server = context.cluster.kafka_server
    server.stop()
    server.start(lambda _step: None)
    return "down and up"


def broker_pause(context: FaultContext) -> str:
    """SIGSTOP the broker for a while."""
    pid = context.cluster.server_pid(context.cluster.kafka_server)
    os.kill(pid, signal.SIGSTOP)
    pause_s = context.random.uniform(3.0, 20.0)
    time.sleep(pause_s)
    os.kill(pid, signal.SIGCONT)
    return f"{pause_s:.0f} s"


def no_coordinator(context: FaultContext) -> str:
    """Connections that ask a group or transaction coordinator for anything are closed."""
    return _bad_link(context, KAFKA, "no-coordinator", 4.0, 12.0)


def broker_cut(context: FaultContext) -> str:
    """The broker runs but cannot be reached."""
    return _bad_link(context, KAFKA, "cut", 3.0, 12.0)


def broker_slow(context: FaultContext) -> str:
    """Every piece of every answer and request takes long."""
    return _bad_link(context, KAFKA, "slow", 4.0, 8.0, delay_ms=context.random.randrange(50, 300))


def redis_kill(context: FaultContext) -> str:
    """Kill -9 Redis and start it again."""
    context.harm(context.cluster.valkey_server.process.pid() is not None)
    context.cluster.valkey_server.process.stop(0.0)
    context.wait(0.0, 3.0)
    context.cluster.valkey_server.start(lambda _step: None)
    return "down and up"


def redis_pause(context: FaultContext) -> str:
    """SIGSTOP Redis for a while."""
    pid = context.cluster.server_pid(context.cluster.valkey_server)
    os.kill(pid, signal.SIGSTOP)
    context.wait(2.0, 8.0)
    os.kill(pid, signal.SIGCONT)
    return "paused"


def redis_flush(context: FaultContext) -> str:
    """FLUSHALL."""
    client = context.redis()
    keys = int(client.dbsize())  # type: ignore[arg-type]
    client.flushall()
    context.harm(keys > 0)
    return f"{keys} keys gone"


def redis_full(context: FaultContext) -> str:
    """Out of memory: writes are refused."""
    client = context.redis()

    def refused() -> int:
        errors: Any = client.info("errorstats")
        return int(errors.get("errorstat_OOM", {"count": 0})["count"])

    known = refused()
    client.config_set("maxmemory", "1mb")
    context.wait(2.0, 6.0)
    client.config_set("maxmemory", "0")
    context.harm(refused() > known)
    return f"maxmemory 1 MB, {refused() - known} writes refused"


def redis_slow(context: FaultContext) -> str:
    """Every answer takes long."""
    return _bad_link(context, VALKEY, "slow", 3.0, 6.0, delay_ms=context.random.randrange(200, 3000))


def redis_cut(context: FaultContext) -> str:
    """Redis cannot be reached."""
    return _bad_link(context, VALKEY, "cut", 2.0, 8.0)


def disk_full(name: str) -> Callable[[FaultContext], str]:
    """Return the fault that fills the disk of ``kafka``, ``valkey`` or ``state/workers``."""

    def fault(context: FaultContext) -> str:
        directory = context.cluster.directory / name
        taken = small_disk.fill(directory)
        context.wait(4.0, 8.0)
        target = context.target()
        context.cluster.kill(target)  # a start on a full disk as well
        context.wait(3.0, 6.0)
        left = small_disk.free(directory)
        context.harm(left < 1 << 20)
        small_disk.empty(directory)
        restarted = ""
        for server in (context.cluster.kafka_server, context.cluster.valkey_server):
            if server.process.pid() is None:
                server.start(lambda _step: None)
                restarted = f"; the {server.process.name} had ended and was started again"
        return f"{taken // 1_000_000} MB taken, {left} bytes free, {target} restarted meanwhile{restarted}"

    return fault


def _bad_link(context: FaultContext, link: int, mode: str, low_s: float, high_s: float, **more: int) -> str:
    context.cluster.link(link, mode, **more)
    context.wait(low_s, high_s)
    count = context.cluster.link(link, "open")
    context.harm(count > 0)
    return ", ".join([mode, *(f"{name} {value}" for name, value in more.items()), f"{count} times"])
