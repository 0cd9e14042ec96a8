"""Scaling: one job shared by more workers, and by more keys."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

from millstream.topology import SCORED
from millstream_lab.bench.audit import check
from millstream_lab.bench.measure import Observer, plain, publish_backlog
from millstream_lab.bench.memory import MemoryWatch
from millstream_lab.bench.plan import BenchPlan, Measured, Track, memory_text, number
from millstream_lab.bench.sides import FEATURE_REPO
from millstream_lab.bench.stack import Job, Stack, set_up
from millstream_lab.bench.worker_group import WorkerGroup, running_group
from millstream_lab.bench.workload import EVENTS_PER_DAY, Workload, generate
from millstream_lab.tables import Table

_SPAN_DAYS = 20
_ANSWERS = "Answers: every event is in `scored` once; 300 records against brute-force windows and LightGBM."


def measure_scaling(plan: BenchPlan, stack: Stack, track: Track) -> Measured:
    """Measure the same backlog with more and more workers."""
    measured = Measured({"events": plan.scaling_events, "partitions": plan.scaling_partitions, "workers": {}})
    for count in plan.workers:
        job = set_up(stack, FEATURE_REPO, plan.scaling_partitions)
        workload = generate(plan.scaling_events, job.schema, plan.seed)
        figures, wrong = _worked_off(plan, job, workload, count, track)
        measured.figures["workers"][str(count)] = figures
        measured.wrong += [f"{count} workers: {each}" for each in wrong]
    return measured


def _worked_off(
    plan: BenchPlan, job: Job, workload: Workload, count: int, track: Track
) -> tuple[dict[str, Any], list[str]]:
    events, partitions = len(workload), job.settings.partitions
    (stage,) = job.assembly.topology.stages
    layout = {f"worker-{number}": (stage.name,) for number in range(1, count + 1)}
    with (
        closing(Observer(job.kafka, SCORED, partitions, lambda m: int(m.key() or b"-1"))) as observer,
        running_group(job, layout) as workers,
    ):
        workers.wait(lambda: _balanced(workers, partitions), "sharing the partitions", every_s=0.5)
        watch = MemoryWatch(workers.pids).start()
        before = _rss_mb(workers)
        words = f"{count} worker{'s' * (count > 1)}, {len(set(workload.customers.tolist())):,} keys"
        publish_backlog(job.kafka, job.input, workload, 0, events, track(f"{words}: publishing", events), at_once=True)
        progress = track(f"{words}: working off the backlog", events)
        done = observer.throughput(events, workers.pids.values(), plan.limit_s, workers.check, progress)
        workers.wait(lambda: workers.total("millstream_view_pending") == 0, "done with the online view", every_s=0.5)
        # The checkpoint of the last events, and what it takes, belong to the state's price.
        time.sleep(job.settings.checkpoint_interval_ms / 1000)
        figures = {
            **plain(done),
            "state_keys": workers.total("millstream_state_keys"),
            "state_entries": workers.total("millstream_state_entries"),
            "state_bytes": workers.total("millstream_state_bytes"),
            "rss_grown_mb": _rss_mb(workers) - before,
            "memory": watch.stop(),
        }
    wrong = check(job, workload, events) if done.complete else [f"the time limit came after {done.events:,} events"]
    if done.complete and figures["state_keys"] != len(set(workload.customers.tolist())):
        wrong.append(f"{figures['state_keys']:,.0f} keys of state")
    return figures, wrong


def _balanced(workers: WorkerGroup, partitions: int) -> bool:
    owned = [each.get("millstream_partitions", 0) for each in workers.metrics().values()]
    return sum(owned) == partitions and max(owned) - min(owned) <= 1


def _rss_mb(workers: WorkerGroup) -> float:
    return workers.total("millstream_process_rss_bytes") / 1e6


def scaling_method(plan: BenchPlan) -> list[str]:
    """Say how."""
    return [
        f"The one-stage job, {plan.scaling_partitions} partitions shared by 1 to {max(plan.workers)} workers, each a "
        f"process; {plan.scaling_events:,} events published in one transaction once all workers own their share.",
        "With no more cores than the broker and one worker use up, events/s cannot grow: what must stay flat is the "
        "CPU time per event, summed over the workers.",
        _ANSWERS,
    ]


def scaling_tables(figures: dict[str, Any]) -> list[Table]:
    """Return the figures as a table."""
    rows = [
        (count, number(each["events_per_s"]), number(each["cpu_s_per_100k"], 2), memory_text(each["memory"]))
        for count, each in figures["workers"].items()
    ]
    columns = ("workers", "events/s", "CPU-s per 100 k events", "MB per worker, peak / steady")
    return [Table(f"Workers over {figures['partitions']} partitions, {figures['events']:,} events", columns, rows)]


def measure_keys(plan: BenchPlan, stack: Stack, track: Track) -> Measured:
    """Measure one worker with more and more keys."""
    measured = Measured({"keys": {}})
    for keys in plan.keys:
        job = set_up(stack, FEATURE_REPO, plan.partitions)
        events = max(plan.keys_events, keys)
        # All within the longest window: a key whose entries have left it leaves as well.
        per_day = max(EVENTS_PER_DAY, events // _SPAN_DAYS)
        workload = generate(events, job.schema, plan.seed, customers=keys, each_once=True, events_per_day=per_day)
        figures, wrong = _worked_off(plan, job, workload, 1, track)
        measured.figures["keys"][str(keys)] = figures
        measured.wrong += [f"{keys:,} keys: {each}" for each in wrong]
    return measured


def keys_method(plan: BenchPlan) -> list[str]:
    """Say how."""
    return [
        f"The one-stage job, one worker; as many customers as stated, each with an event at least; "
        f"{plan.keys_events:,} events, or as many as there are keys. Windows of 1, 7 and 30 days.",
        "State: the windows' own memory (millstream_state_bytes) per key and per entry. Grown: resident memory of the "
        "worker after the backlog less that before, per key: state and buffers.",
        _ANSWERS,
    ]


def keys_tables(figures: dict[str, Any]) -> list[Table]:
    """Return the figures as a table."""
    rows = [
        (
            number(int(keys)),
            number(each["events"]),
            number(each["events_per_s"]),
            number(each["cpu_s_per_100k"], 2),
            number(each["state_bytes"] / each["state_keys"] if each["state_keys"] else None),
            number(each["state_bytes"] / each["state_entries"] if each["state_entries"] else None),
            number(each["rss_grown_mb"] * 1e6 / int(keys)),
            memory_text(each["memory"]),
        )
        for keys, each in figures["keys"].items()
    ]
    columns = (
        "keys",
        "events",
        "events/s",
        "CPU-s per 100 k events",
        "state bytes per key",
        "state bytes per entry",
        "grown bytes per key",
        "MB, peak / steady",
    )
    return [Table("Keys of one worker", columns, rows)]
