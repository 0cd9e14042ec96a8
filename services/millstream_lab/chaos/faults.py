"""The faults that can be injected, by name.

A fault does its harm, undoes what would not undo itself, and returns what it did in words; where there is no sign that
it did any, it calls `FaultContext.harm`. The injector waits for the cluster to be well again afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

from millstream_lab.chaos import faults_inputs as inputs
from millstream_lab.chaos import faults_servers as servers
from millstream_lab.chaos import faults_workers as workers
from millstream_lab.chaos.candidate_models import BAD
from millstream_lab.chaos.fault_context import FaultContext

KILLS: dict[str, Callable[[FaultContext], str]] = {
    "kill -9 anywhere": workers.kill_anywhere,
    "kill -9 twice in a row": workers.kill_twice,
    "kill -9 in mid-batch": workers.kill_at("mid-batch"),
    "kill -9 after produce, before offsets": workers.kill_at("after-produce"),
    "kill -9 between produce and commit": workers.kill_at("before-commit"),
    "kill -9 right after commit": workers.kill_at("after-commit"),
    "kill -9 in a checkpoint": workers.kill_at("in-checkpoint"),
    "kill -9 in recovery": workers.kill_at("in-recovery"),
    "kill -9 in a rebalance": workers.kill_at("in-rebalance"),
}
BAD_MODELS: dict[str, Callable[[FaultContext], str]] = {f"model {how}": inputs.bad_model(how) for how in BAD}
FAULTS: dict[str, Callable[[FaultContext], str]] = {
    "SIGSTOP beyond the session": workers.zombie,
    "SIGSTOP within the session": workers.short_pause,
    "SIGSTOP in pulses": workers.starve,
    "SIGTERM under load": workers.terminate,
    "worker joins and leaves": workers.join_and_leave,
    "rolling restart": workers.rolling_restart,
    "more workers than partitions": workers.crowd,
    "broker kill -9": servers.broker_kill,
    "broker restarted": servers.broker_restart,
    "broker paused": servers.broker_pause,
    "broker unreachable": servers.broker_cut,
    "broker slow": servers.broker_slow,
    "coordinator unavailable": servers.no_coordinator,
    "Redis kill -9": servers.redis_kill,
    "Redis paused": servers.redis_pause,
    "Redis flushed": servers.redis_flush,
    "Redis out of memory": servers.redis_full,
    "Redis slow": servers.redis_slow,
    "Redis unreachable": servers.redis_cut,
    "clock stepped": inputs.clock_step,
    **BAD_MODELS,
    "model swapped in flight": inputs.model_swap,
    "schema registry down": inputs.registry_down,
    "configuration wrong": inputs.wrong_configuration,
}
DISK_FAULTS: dict[str, Callable[[FaultContext], str]] = {
    "disk full: log": servers.disk_full("kafka"),
    "disk full: Redis": servers.disk_full("valkey"),
    "disk full: state": servers.disk_full("state/workers"),
}
