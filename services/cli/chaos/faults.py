"""Everything the nemesis can do: one function per fault, by name in `FAULTS`.

A fault does its harm, undoes what would not undo itself, and returns what it did in words; where there is no sign that
it did any, it says so to `Arena.harm`. The nemesis waits for the cluster to be well again afterwards.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis

from services.adapters.promotions import publish as promote
from services.cli.bench.sides import own_environ
from services.cli.chaos import small_disk
from services.cli.chaos.cluster import KAFKA, VALKEY, Cluster
from services.cli.chaos.contenders import BAD, spoiled
from services.cli.chaos.stream import ChaosStream
from services.core.avro.encode import RecordWriter
from services.core.avro.schema import Schema
from services.core.declaration import Service
from services.errors import Stop
from services.ports import ModelVersion

SESSION_S = 10.0


@dataclass
class Arena:
    """What faults may touch.

    Parameters
    ----------
    good : list of ModelVersion
        Models that fit.
    spared : frozenset of str
        Workers that are never harmed.
    redis_url : str
        Of the server itself, not its link.
    harmed : bool
        Whether the present fault did what its name says.
    """

    cluster: Cluster
    random: random.Random
    kafka: dict[str, str]
    redis_url: str
    service: Service
    good: list[ModelVersion]
    schema: Schema
    stream: ChaosStream
    partitions: int
    spared: frozenset[str] = frozenset()
    bad_version: int = 900
    harmed: bool = True

    def harm(self, was_done: bool) -> None:
        """Tell whether there is a sign of harm; one that is missing counts."""
        self.harmed = self.harmed and was_done

    def victim(self) -> str:
        """Choose a worker."""
        return self.random.choice(sorted(set(self.cluster.workers) - self.spared))

    def wait(self, low_s: float, high_s: float) -> None:
        """Let a random time pass."""
        time.sleep(self.random.uniform(low_s, high_s))

    def redis(self) -> redis.Redis:
        """Return a client of the server itself."""
        return redis.Redis.from_url(self.redis_url, socket_timeout=30)


def kill_anywhere(arena: Arena) -> str:
    """Kill -9 at a random moment."""
    victim = arena.victim()
    arena.wait(0.0, 2.0)
    arena.harm(arena.cluster.kill(victim))
    return victim


def kill_twice(arena: Arena) -> str:
    """Kill -9, and again while it starts or recovers."""
    victim = arena.victim()
    arena.cluster.kill(victim)
    arena.wait(0.5, 7.0)
    arena.harm(arena.cluster.kill(victim))
    return victim


def kill_at(point: str) -> Callable[[Arena], str]:
    """Return the fault that kills -9 at a point of the code."""

    def fault(arena: Arena) -> str:
        cluster, victim = arena.cluster, arena.victim()
        early = point in {"in-recovery", "in-rebalance"}
        number = 1 if early else arena.random.randrange(1, 12)
        cluster.kill(victim, crash=f"{point}:{number}")
        known = cluster.killed(victim)
        if point == "in-rebalance":
            _await(lambda: cluster.ready(victim), 60)
            cluster.add("guest")
            arena.harm(_await(lambda: cluster.killed(victim) > known, 60))
            cluster.stop("guest")
            return f"{victim} when the guest came"
        came = _await(lambda: cluster.killed(victim) > known, 40)
        arena.harm(came)
        if not came:
            cluster.kill(victim)
            return f"{victim}, pass {number} never came; killed"
        return f"{victim}, pass {number}"

    return fault


def zombie(arena: Arena) -> str:
    """SIGSTOP a worker for longer than its session, then let it go on: it must be fenced."""
    cluster, victim = arena.cluster, arena.victim()
    _await(lambda: cluster.ready(victim), 30)
    pid = cluster.pid(victim)
    arena.harm(cluster.signal(victim, signal.SIGSTOP))
    time.sleep(SESSION_S + arena.random.uniform(3.0, 8.0))
    cluster.signal(victim, signal.SIGCONT)
    left = _await(lambda: cluster.pid(victim) != pid, 4)
    return f"{victim}, {'left when it woke' if left else 'joined anew when it woke'}"


def short_pause(arena: Arena) -> str:
    """SIGSTOP a worker for less than its session."""
    victim = arena.victim()
    arena.harm(arena.cluster.signal(victim, signal.SIGSTOP))
    arena.wait(1.0, 6.0)
    arena.cluster.signal(victim, signal.SIGCONT)
    return victim


def terminate(arena: Arena) -> str:
    """SIGTERM under load: it must leave with code 0."""
    victim = arena.victim()
    arena.harm(_await(lambda: arena.cluster.ready(victim), 30))
    code = arena.cluster.stop(victim)
    arena.cluster.add(victim)
    if code != 0:
        raise Stop(f"{victim} left with {code} after SIGTERM:\n{arena.cluster.exits[-1].tail}")
    return victim


def join_and_leave(arena: Arena) -> str:
    """A worker joins, works and leaves."""
    arena.cluster.add("guest")
    arena.harm(_await(lambda: arena.cluster.ready("guest"), 60))
    arena.wait(0.5, 3.0)
    arena.cluster.stop("guest")
    return "guest"


def rolling_restart(arena: Arena) -> str:
    """Restart every worker, one after another."""
    names = sorted(arena.cluster.workers)
    for name in names:
        arena.cluster.stop(name)
        arena.cluster.add(name)
        arena.harm(_await(lambda name=name: arena.cluster.ready(name), 60))  # type: ignore[misc]
    return ", ".join(names)


def crowd(arena: Arena) -> str:
    """More workers than partitions."""
    guests = ["guest-1", "guest-2", "guest-3"]
    for guest in guests:
        arena.cluster.add(guest)
    arena.wait(10.0, 20.0)
    count = len(arena.cluster.running())
    arena.harm(count > arena.partitions and _await(lambda: any(map(arena.cluster.ready, guests)), 30))
    for guest in guests:
        arena.cluster.stop(guest)
    return f"{count} workers for a time"


def broker_kill(arena: Arena) -> str:
    """Kill -9 the broker and start it again."""
    server = arena.cluster.kafka_server
    arena.harm(server.process.pid() is not None)
    server.process.stop(0.0)
    arena.wait(0.0, 4.0)
    server.start(lambda _step: None)
    return "down and up"


def broker_restart(arena: Arena) -> str:
    """Stop the broker in an orderly way and start it again."""
    server = arena.cluster.kafka_server
    server.stop()
    server.start(lambda _step: None)
    return "down and up"


def broker_pause(arena: Arena) -> str:
    """SIGSTOP the broker for a while."""
    pid = arena.cluster.server_pid(arena.cluster.kafka_server)
    os.kill(pid, signal.SIGSTOP)
    pause_s = arena.random.uniform(3.0, 20.0)
    time.sleep(pause_s)
    os.kill(pid, signal.SIGCONT)
    return f"{pause_s:.0f} s"


def no_coordinator(arena: Arena) -> str:
    """Connections that ask a group or transaction coordinator for anything are closed."""
    return _bad_link(arena, KAFKA, "no-coordinator", 4.0, 12.0)


def broker_cut(arena: Arena) -> str:
    """Nobody reaches the broker, which itself is well."""
    return _bad_link(arena, KAFKA, "cut", 3.0, 12.0)


def broker_slow(arena: Arena) -> str:
    """Every piece of every answer and request takes long."""
    return _bad_link(arena, KAFKA, "slow", 4.0, 8.0, delay_ms=arena.random.randrange(50, 300))


def redis_kill(arena: Arena) -> str:
    """Kill -9 Redis and start it again."""
    arena.harm(arena.cluster.valkey_server.process.pid() is not None)
    arena.cluster.valkey_server.process.stop(0.0)
    arena.wait(0.0, 3.0)
    arena.cluster.valkey_server.start(lambda _step: None)
    return "down and up"


def redis_pause(arena: Arena) -> str:
    """SIGSTOP Redis for a while."""
    pid = arena.cluster.server_pid(arena.cluster.valkey_server)
    os.kill(pid, signal.SIGSTOP)
    arena.wait(2.0, 8.0)
    os.kill(pid, signal.SIGCONT)
    return "paused"


def redis_flush(arena: Arena) -> str:
    """FLUSHALL."""
    client = arena.redis()
    keys = int(client.dbsize())  # type: ignore[arg-type]
    client.flushall()
    arena.harm(keys > 0)
    return f"{keys} keys gone"


def redis_full(arena: Arena) -> str:
    """Out of memory: writes are refused."""
    client = arena.redis()

    def refused() -> int:
        errors: Any = client.info("errorstats")
        return int(errors.get("errorstat_OOM", {"count": 0})["count"])

    known = refused()
    client.config_set("maxmemory", "1mb")
    arena.wait(2.0, 6.0)
    client.config_set("maxmemory", "0")
    arena.harm(refused() > known)
    return f"maxmemory 1 MB, {refused() - known} writes refused"


def redis_slow(arena: Arena) -> str:
    """Every answer takes long."""
    return _bad_link(arena, VALKEY, "slow", 3.0, 6.0, delay_ms=arena.random.randrange(200, 3000))


def redis_cut(arena: Arena) -> str:
    """Nobody reaches Redis."""
    return _bad_link(arena, VALKEY, "cut", 2.0, 8.0)


def disk_full(name: str) -> Callable[[Arena], str]:
    """Return the fault that fills the disk of ``kafka``, ``valkey`` or ``state/workers``."""

    def fault(arena: Arena) -> str:
        directory = arena.cluster.directory / name
        taken = small_disk.fill(directory)
        arena.wait(4.0, 8.0)
        victim = arena.victim()
        arena.cluster.kill(victim)  # a start on a full disk as well
        arena.wait(3.0, 6.0)
        left = small_disk.free(directory)
        arena.harm(left < 1 << 20)
        small_disk.empty(directory)
        restarted = ""
        for server in (arena.cluster.kafka_server, arena.cluster.valkey_server):
            if server.process.pid() is None:
                server.start(lambda _step: None)
                restarted = f"; the {server.process.name} had ended and was started again"
        return f"{taken // 1_000_000} MB taken, {left} bytes free, {victim} restarted meanwhile{restarted}"

    return fault


def clock_step(arena: Arena) -> str:
    """Step the wall clock of all workers, there and back."""
    seconds = arena.random.choice([-86_400, -3_600, -5, 5, 3_600, 86_400])
    clock = arena.cluster.clock
    seen = clock.with_suffix(".seen")
    seen.write_text("")
    clock.write_text(str(seconds))
    arena.wait(3.0, 6.0)
    clock.write_text("0")
    count = seen.read_text().split().count(str(seconds))
    arena.harm(count > 0)
    return f"{seconds:+} s and back, {count} workers saw it"


def bad_model(how: str) -> Callable[[Arena], str]:
    """Return the fault that promotes a model that must be refused."""

    def fault(arena: Arena) -> str:
        arena.bad_version += 1
        good = arena.random.choice(arena.good)
        promote(arena.kafka, spoiled(good, arena.bad_version, how))
        arena.wait(1.0, 2.0)
        arena.cluster.kill(arena.victim())  # a start with nothing better on offer
        arena.wait(4.0, 8.0)
        promote(arena.kafka, good)
        refusals = arena.cluster.told(f"model {good.name!r} version {arena.bad_version} is refused")
        arena.harm(refusals > 0)
        return f"version {arena.bad_version}, refused {refusals} times"

    return fault


def model_swap(arena: Arena) -> str:
    """Promote one good model after another in mid-flight."""
    for turn in range(4):
        promote(arena.kafka, arena.good[turn % len(arena.good)])
        arena.wait(0.2, 1.0)
    return "four promotions"


def registry_down(arena: Arena) -> str:
    """The schema registry fails while records with an id that is new to everybody arrive, and a worker starts."""
    registry = arena.cluster.registry
    registry.status, registry.refused = 503, 0
    doc = f"variant {len(registry.texts)}"
    number = registry.add({"schema": variant(arena.schema, doc), "schemaType": "AVRO"})
    arena.stream.reframe(RecordWriter(arena.schema, b"\0" + number.to_bytes(4, "big")))
    arena.wait(1.0, 3.0)
    arena.cluster.kill(arena.victim())
    arena.wait(3.0, 8.0)
    registry.status = 200
    arena.harm(registry.refused > 0)
    return f"new id {number}, {registry.refused} requests refused"


def variant(schema: Schema, doc: str) -> str:
    """Return the same schema with another doc, so that it is another text under another id."""
    return json.dumps({**json.loads(schema.to_json()), "doc": doc})


WRONG = (
    ({"MILLSTREAM_BATCH_RECORDS": "0"}, "MILLSTREAM_BATCH_RECORDS"),
    ({"MILLSTREAM_GUARANTEE": "twice"}, "MILLSTREAM_GUARANTEE"),
    ({"MILLSTREAM_FEATURE_REPO": "nowhere"}, "nowhere"),
    ({"MILLSTREAM_REDIS_URL": "nonsense"}, "MILLSTREAM_REDIS_URL"),
    ({"MILLSTREAM_SCHEMA_REGISTRY_URL": "ftp://x"}, "MILLSTREAM_SCHEMA_REGISTRY_URL"),
    ({"MILLSTREAM_KAFKA_SECURITY_PROTOCOL": "nonsense"}, "MILLSTREAM_KAFKA_SECURITY_PROTOCOL"),
    ({"MILLSTREAM_SCHEMAS_DIR": "nowhere"}, "nowhere"),
)


def wrong_configuration(arena: Arena) -> str:
    """Start a worker with a wrong setting: it must leave at once, naming it."""
    environ, named = arena.random.choice(WRONG)
    done = subprocess.run(
        [sys.executable, "-m", "services", "run"],
        env={**own_environ(), **arena.cluster.environ, "MILLSTREAM_WORKER_ID": "wrong", **environ},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    said = done.stdout + done.stderr
    if done.returncode == 0 or named not in said or "Traceback" in said:
        raise Stop(f"{environ}: left with {done.returncode} and did not name {named}:\n{said[-1500:]}")
    return f"{next(iter(environ))}: exit {done.returncode}"


def _bad_link(arena: Arena, link: int, mode: str, low_s: float, high_s: float, **more: int) -> str:
    arena.cluster.link(link, mode, **more)
    arena.wait(low_s, high_s)
    count = arena.cluster.link(link, "open")
    arena.harm(count > 0)
    return ", ".join([mode, *(f"{name} {value}" for name, value in more.items()), f"{count} times"])


def _await(condition: Callable[[], bool], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


KILLS: dict[str, Callable[[Arena], str]] = {
    "kill -9 anywhere": kill_anywhere,
    "kill -9 twice in a row": kill_twice,
    "kill -9 in mid-batch": kill_at("mid-batch"),
    "kill -9 after produce, before offsets": kill_at("after-produce"),
    "kill -9 between produce and commit": kill_at("before-commit"),
    "kill -9 right after commit": kill_at("after-commit"),
    "kill -9 in a checkpoint": kill_at("in-checkpoint"),
    "kill -9 in recovery": kill_at("in-recovery"),
    "kill -9 in a rebalance": kill_at("in-rebalance"),
}
BAD_MODELS: dict[str, Callable[[Arena], str]] = {f"model {how}": bad_model(how) for how in BAD}
FAULTS: dict[str, Callable[[Arena], str]] = {
    "SIGSTOP beyond the session": zombie,
    "SIGSTOP within the session": short_pause,
    "SIGTERM under load": terminate,
    "worker joins and leaves": join_and_leave,
    "rolling restart": rolling_restart,
    "more workers than partitions": crowd,
    "broker kill -9": broker_kill,
    "broker restarted": broker_restart,
    "broker paused": broker_pause,
    "broker unreachable": broker_cut,
    "broker slow": broker_slow,
    "coordinator unavailable": no_coordinator,
    "Redis kill -9": redis_kill,
    "Redis paused": redis_pause,
    "Redis flushed": redis_flush,
    "Redis out of memory": redis_full,
    "Redis slow": redis_slow,
    "Redis unreachable": redis_cut,
    "clock stepped": clock_step,
    **BAD_MODELS,
    "model swapped in flight": model_swap,
    "schema registry down": registry_down,
    "configuration wrong": wrong_configuration,
}
DISK_FAULTS: dict[str, Callable[[Arena], str]] = {
    "disk full: log": disk_full("kafka"),
    "disk full: Redis": disk_full("valkey"),
    "disk full: state": disk_full("state/workers"),
}
