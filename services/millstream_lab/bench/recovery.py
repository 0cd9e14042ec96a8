"""Recovery: a worker with a million events of state is killed; how long until the next one has it again."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

from confluent_kafka.admin import AdminClient

from millstream.adapters.kafka.cluster import named
from millstream.adapters.kafka.topics import create_topics
from millstream.app.worker_processes import address_of, is_ready
from millstream.errors import Stop
from millstream.topology import SCORED
from millstream_lab.bench import scrape
from millstream_lab.bench.audit import check
from millstream_lab.bench.measure import Observer, plain, publish_backlog
from millstream_lab.bench.memory import MemoryWatch
from millstream_lab.bench.plan import BenchPlan, Measured, Track, memory_text, number
from millstream_lab.bench.sides import FEATURE_REPO
from millstream_lab.bench.stack import Stack, delete_topics, set_up
from millstream_lab.bench.worker_group import WorkerGroup, running_group
from millstream_lab.bench.workload import CUSTOMERS, EVENTS_PER_DAY, TERMINALS, generate
from millstream_lab.tables import Table

# So many times the reference's events a day, of as many more customers: then a month's windows hold all the events.
SCALE = 5
PROBES = 1_000
_CHECKPOINTS = 1.5
CASES = {
    "checkpointed": "killed after a checkpoint",
    "changelog lost": "killed, and its changelog deleted",
}


def measure_recovery(plan: BenchPlan, stack: Stack, track: Track) -> Measured:
    """Fill the state, then kill and start again, once with and once without the changelog."""
    job = set_up(stack, FEATURE_REPO, plan.partitions)
    events = plan.recovery_events
    scale = max(SCALE, -(-events // (EVENTS_PER_DAY * 25)))
    workload = generate(
        events + PROBES * len(plan.recovery_cases),
        job.schema,
        plan.seed,
        customers=CUSTOMERS * scale,
        terminals=TERMINALS * scale,
        events_per_day=EVENTS_PER_DAY * scale,
    )
    measured = Measured({"events": events, "cases": {}})
    layout = {"keeper": (job.assembly.topology.stages[0].name,)}
    with closing(Observer(job.kafka, SCORED, plan.partitions, lambda m: int(m.key() or b"-1"))) as observer:
        with running_group(job, layout) as workers:
            publish_backlog(
                job.kafka, job.input, workload, 0, events, track("recovery: publishing", events), at_once=True
            )
            progress = track("recovery: filling the state", events)
            filled = observer.throughput(events, workers.pids.values(), 10 * plan.limit_s, workers.check, progress)
            if not filled.complete:
                raise Stop(f"the state was not filled: {filled.events:,} of {events:,} events came out")
            measured.figures["filling"] = plain(filled)
            _killed(workers)
        done = events
        for case in plan.recovery_cases:
            words = CASES[case]
            if case == "changelog lost":
                changelog = job.assembly.topology.stages[0].changelog
                delete_topics(AdminClient(dict(job.kafka)), [named(job.kafka, changelog)])
                create_topics(job.kafka, job.assembly.topology.topics, plan.partitions, 1)
            stack.say(f"recovery: {words}; starting")
            started_s = time.monotonic()
            with running_group(job, layout, wait=False) as workers:
                watch = MemoryWatch(workers.pids).start()
                found = _recovered(workers, started_s)
                publish_backlog(job.kafka, job.input, workload, done, done + PROBES, lambda _done: None, at_once=True)
                found["memory"] = watch.stop()
                measured.wrong += _answered(observer, workers, done)
                done += PROBES
                _killed(workers)
            measured.figures["cases"][case] = found
            # The probes' features need the whole state: what recovery lost or doubled would show in them.
            measured.wrong += [f"{words}: {each}" for each in check(job, workload, done, start=done - PROBES)]
            if found["state_entries"] != events + PROBES * (len(measured.figures["cases"]) - 1):
                measured.wrong.append(f"{words}: {found['state_entries']:,.0f} entries of state, should be {events:,}")
    return measured


def _killed(workers: WorkerGroup) -> None:
    """Let the next checkpoint pass and kill the worker as it idles."""
    time.sleep(workers.job.settings.checkpoint_interval_ms / 1000 * _CHECKPOINTS)
    for worker in workers.workers:
        worker.check()
        worker.kill()


def _recovered(workers: WorkerGroup, started_s: float) -> dict[str, Any]:
    (worker,) = workers.workers
    state_dir = workers.job.stack.state_dir
    workers.wait(lambda: address_of(state_dir, worker.name, worker.pid) is not None, "up", every_s=0.02)
    built_s = time.monotonic()
    workers.wait(lambda: is_ready(state_dir, worker.name, worker.pid), "recovered", limit_s=300, every_s=0.05)
    ready_s = time.monotonic()
    scraped = scrape.metrics(state_dir, worker.name, worker.pid)
    return {
        "start_to_ready_s": ready_s - started_s,
        "process_s": built_s - started_s,
        "waiting_s": ready_s - built_s - scraped["millstream_recovery_seconds_sum"],
        "recovery_s": scraped["millstream_recovery_seconds_sum"],
        "rows": scraped.get("millstream_recovery_records_total:rows", 0.0),
        "replayed": scraped.get("millstream_recovery_records_total:replayed", 0.0),
        "state_keys": scraped["millstream_state_keys"],
        "state_entries": scraped["millstream_state_entries"],
        "state_mb": scraped["millstream_state_bytes"] / 1e6,
    }


def _answered(observer: Observer, workers: WorkerGroup, start: int) -> list[str]:
    seen: set[int] = set()
    doubled = 0
    until_s = time.monotonic() + 30.0
    while len(seen) < PROBES and time.monotonic() < until_s:
        workers.check()
        got, _now_s = observer.take(0.2)
        doubled += sum(1 for event in got if event < start or event in seen)
        seen.update(event for event in got if event >= start)
    wrong = [f"{PROBES - len(seen)} events were not answered after recovery"] * (len(seen) < PROBES)
    doubled_matter = doubled > 0 and workers.job.stack.guarantee == "exactly_once"
    return wrong + [f"recovery doubled {doubled:,} outputs"] * doubled_matter


def recovery_method(plan: BenchPlan) -> list[str]:
    """Say how."""
    return [
        f"One worker of the one-stage job works off {plan.recovery_events:,} events, all within the 30-day window, so "
        "that each is an entry of state; a checkpoint passes; kill -9; a new worker is started at once.",
        "Recovery: millstream_recovery_seconds summed over the partitions, from assignment to state complete. Before "
        "it come the process's own start (imports, compiled kernels, first connections) and the wait for the broker to "
        "give the dead worker's partitions away (session timeout 6 s from its last heartbeat). Ready: the worker's own "
        "probe.",
        "With the changelog deleted, the state is replayed from the events' topic.",
        f"Answers: the number of entries; then {PROBES:,} more events, each answered once, 300 of them against "
        "brute-force windows over everything before.",
    ]


def recovery_tables(figures: dict[str, Any]) -> list[Table]:
    """Return the figures as a table."""
    rows = [
        (
            CASES[case],
            number(found["recovery_s"], 2),
            number(found["process_s"], 2),
            number(found["waiting_s"], 2),
            number(found["start_to_ready_s"], 2),
            f"{number(found['rows'])} / {number(found['replayed'])}",
            number(found["state_mb"]),
            memory_text(found["memory"]),
        )
        for case, found in figures["cases"].items()
    ]
    columns = (
        "",
        "recovery s",
        "process start s",
        "waiting for the group s",
        "start to ready s",
        "rows read / events replayed",
        "state MB",
        "MB per worker, peak / steady",
    )
    return [Table(f"Recovery of {figures['events']:,} events of state", columns, rows)]
