"""Every part of the benchmark by name, run one after the other on one stack."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from millstream.settings import PREFIX
from millstream_lab.bench.labels import (
    join_method,
    join_tables,
    ledger_method,
    ledger_tables,
    measure_join,
    measure_ledger,
)
from millstream_lab.bench.learning import learner_method, learner_tables, measure_learner
from millstream_lab.bench.one_stage import measure_one_stage, one_stage_method, one_stage_tables
from millstream_lab.bench.path import (
    latency_method,
    latency_tables,
    measure_latency,
    measure_path,
    path_method,
    path_tables,
)
from millstream_lab.bench.plan import BenchPlan, Measured, Track
from millstream_lab.bench.recovery import measure_recovery, recovery_method, recovery_tables
from millstream_lab.bench.scaling import (
    keys_method,
    keys_tables,
    measure_keys,
    measure_scaling,
    scaling_method,
    scaling_tables,
)
from millstream_lab.bench.sides import own_environ
from millstream_lab.bench.stack import Stack, own_stack
from millstream_lab.bench.view import measure_view, view_method, view_tables
from millstream_lab.tables import Table

LIBRARIES = (
    "faust-streaming",
    "aiokafka",
    "confluent-kafka",
    "feast",
    "lightgbm",
    "numba",
    "numpy",
    "redis",
    "river",
    "rocksdict",
)


@dataclass(frozen=True)
class Part:
    """One measurement.

    Parameters
    ----------
    title : str
    measure : callable
        Runs it on an otherwise idle stack.
    method : callable
        Returns the method of measurement for a plan, in sentences.
    tables : callable
        Shows its figures.
    servers : bool
        False if it runs in this process alone, and must not share the machine with a broker.
    """

    title: str
    measure: Callable[[BenchPlan, Stack, Track], Measured]
    method: Callable[[BenchPlan], list[str]]
    tables: Callable[[dict[str, Any]], list[Table]]
    servers: bool = True


PARTS: Mapping[str, Part] = {
    "one-stage": Part("The one-stage job against stock Faust", measure_one_stage, one_stage_method, one_stage_tables),
    "path": Part("The whole path: throughput", measure_path, path_method, path_tables),
    "latency": Part("The whole path: end-to-end latency", measure_latency, latency_method, latency_tables),
    "recovery": Part("Recovery of state", measure_recovery, recovery_method, recovery_tables),
    "view": Part("The online view in Redis", measure_view, view_method, view_tables),
    "scaling": Part("More workers", measure_scaling, scaling_method, scaling_tables),
    "keys": Part("More keys", measure_keys, keys_method, keys_tables),
    "learner": Part("The learner against River", measure_learner, learner_method, learner_tables, servers=False),
    "join": Part("Labels meet predictions", measure_join, join_method, join_tables),
    "ledger": Part("Predictions pending", measure_ledger, ledger_method, ledger_tables, servers=False),
}


def run_bench(
    names: Sequence[str],
    plan: BenchPlan,
    state_dir: Path,
    say: Callable[[str], None],
    track: Track,
    keep: Callable[[str, dict[str, Any]], None],
) -> None:
    """Run the named parts.

    Parameters
    ----------
    state_dir : Path
        Empty directory for the benchmark's own servers.
    keep : callable
        Given each part's section of the report, JSON values, as soon as it is there.

    Raises
    ------
    Misconfigured, Retry, Stop
        Saying what failed.
    """
    for servers in (True, False):
        mine = [name for name in names if PARTS[name].servers is servers]
        if not mine:
            continue
        with own_stack(state_dir, say, plan.guarantee, plan.seed, servers) as stack:
            if servers and plan.broker_warm_up_events:
                say("warming the broker up: a round of the one-stage job that does not count")
                # A Java broker that has just started compiles what it runs for a minute, on the cores of what is
                # measured first.
                measure_one_stage(
                    replace(plan, events=plan.broker_warm_up_events, sides=frozenset({"millstream"})), stack, track
                )
            for name in mine:
                say(f"{name}: {PARTS[name].title.lower()}")
                keep(name, run_part(name, plan, stack, track))


def run_part(name: str, plan: BenchPlan, stack: Stack, track: Track) -> dict[str, Any]:
    """Run one part on a running stack and return its section of the report."""
    part, started_s, load = PARTS[name], time.monotonic(), os.getloadavg()[0]
    measured = part.measure(plan, stack, track)
    return {
        "title": part.title,
        "method": part.method(plan),
        "figures": measured.figures,
        "wrong": measured.wrong,
        "machine": {
            **machine_facts(plan),
            "load_before": load,
            "seconds": time.monotonic() - started_s,
        },
    }


def machine_facts(plan: BenchPlan) -> dict[str, Any]:
    """Return what the figures depend on: cores, memory, versions, settings, time."""
    return {
        "cores": os.cpu_count(),
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        "processor": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "settings": {name: value for name, value in own_environ().items() if name.startswith(PREFIX)},
        "guarantee": plan.guarantee,
        "seed": plan.seed,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
