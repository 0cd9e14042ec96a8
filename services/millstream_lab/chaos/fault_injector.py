"""Chooses faults by seed, does them one after another, and waits each time until the cluster is well again."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import redis
from confluent_kafka import KafkaException

from millstream.app.worker_processes import last_lines
from millstream.errors import MillstreamError, Stop
from millstream_lab.chaos.fault_context import FaultContext
from millstream_lab.chaos.faults import KILLS

HEAL_LIMIT_S = 180.0
HASTE = 0.7


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """One fault done.

    Parameters
    ----------
    fault, note : str
        Its name and what it did.
    at_s : float
        Seconds since the start.
    lasted_s, healed_s : float
        How long it took, and how long after it until every worker was ready and the lag under a second's worth;
        NaN where that was not waited for.
    exits : int
        Worker processes that ended meanwhile.
    harmed : bool
        Whether there is evidence that it had its effect.
    wrong : str
        A failure found by the fault itself; empty if none.
    """

    fault: str
    note: str
    at_s: float
    lasted_s: float
    healed_s: float
    exits: int
    harmed: bool = True
    wrong: str = ""


def idle(deeds: Sequence[InjectedFault]) -> list[str]:
    """Return the faults that never did any harm, so that surviving them shows nothing."""
    names = {deed.fault for deed in deeds}
    return [f"{name} never did" for name in sorted(names - {deed.fault for deed in deeds if deed.harmed})]


def plan(times: Mapping[str, int], seed: int) -> list[str]:
    """Return every fault as often as wanted, in a random order."""
    names = [name for name, count in times.items() for _ in range(count)]
    random.Random(seed).shuffle(names)
    return names


def inject_faults(
    context: FaultContext,
    faults: Mapping[str, Callable[[FaultContext], str]],
    names: Iterable[str],
    healthy: Callable[[float], bool],
    done: Callable[[InjectedFault], None],
    lags: Callable[[], str],
) -> list[InjectedFault]:
    """Do the faults in order; after most kills the next thing comes at once, whatever state the cluster is in.

    Raises
    ------
    Stop
        The cluster did not get well within three minutes.
    """
    deeds: list[InjectedFault] = []
    started_s = time.monotonic()
    for name in names:
        at_s, known, wrong = time.monotonic(), len(context.cluster.exits), ""
        context.harmed = True
        try:
            note = faults[name](context)
        except (MillstreamError, redis.RedisError, KafkaException, OSError) as error:
            note, wrong = "went wrong", f"{name}: {type(error).__name__}: {error}"
        over_s = time.monotonic()
        hasty = name in KILLS and context.random.random() < HASTE
        while not hasty and not healthy(over_s):
            if time.monotonic() - over_s > HEAL_LIMIT_S:
                raise Stop(f"{name} ({note}): not well again within {HEAL_LIMIT_S:.0f} s\n{lags()}\n{_state(context)}")
            time.sleep(0.25)
        healed_s = math.nan if hasty else time.monotonic() - over_s
        exits = len(context.cluster.exits) - known
        deed = InjectedFault(name, note, at_s - started_s, over_s - at_s, healed_s, exits, context.harmed, wrong)
        deeds.append(deed)
        done(deed)
    return deeds


def _state(context: FaultContext) -> str:
    cluster = context.cluster
    codes = Counter((each.worker, each.code) for each in cluster.exits)
    ready = {name: cluster.ready(name) for name in cluster.workers}
    tails = "\n".join(f"--- {name}\n{last_lines(worker.log)}" for name, worker in cluster.workers.items())
    return f"running: {', '.join(cluster.running()) or 'none'}; ready: {ready}; exits: {dict(codes)}\n{tails}"
