"""The whole path of the reference repo: two hops, exactly once, online view and metrics on; backlog, then paced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

from millstream.errors import Misconfigured
from millstream.topology import PREDICTIONS
from millstream_lab.bench.audit import check
from millstream_lab.bench.measure import Observer, plain, publish_backlog
from millstream_lab.bench.memory import MemoryWatch
from millstream_lab.bench.phases import METHOD, phase_table, phases
from millstream_lab.bench.plan import BenchPlan, Measured, Track, memory_text, number
from millstream_lab.bench.stack import Job, Stack, set_up
from millstream_lab.bench.worker_group import WorkerGroup, running_group
from millstream_lab.bench.workload import CUSTOMERS, EVENTS_PER_DAY, TERMINALS, Workload, generate
from millstream_lab.tables import Table

# A backlog is read unevenly across partitions, so that the second hop sees it out of order. With as many more customers
# and terminals as there are more events a day, that disorder is hours, as it would be behind a broker, not weeks.
SCALE = 20
LAYOUT_NAMES = {"split": "a worker per stage", "whole": "one worker for both stages"}
ANSWERS = (
    "Answers: every event is in `predictions` and in `scored` once; 300 records against brute-force windows in "
    "the order of arrival, and LightGBM."
)


def reference_job(plan: BenchPlan, stack: Stack) -> Job:
    """Set the reference repo up.

    Raises
    ------
    Misconfigured
        It is not there, or another one is.
    """
    job = set_up(stack, plan.reference_repo, plan.partitions)
    keys = [stage.join_key for stage in job.assembly.topology.stages]
    if keys != ["customer_id", "terminal_id"]:
        raise Misconfigured(
            f"{plan.reference_repo} has the hops {', '.join(keys)}; the benchmark's events are of customer_id and "
            "terminal_id. Run it where the reference feature repo is, or name that by MILLSTREAM_FEATURE_REPO"
        )
    return job


def reference_events(job: Job, events: int, seed: int) -> Workload:
    """Return events for the reference repo."""
    return generate(
        events,
        job.schema,
        seed,
        customers=CUSTOMERS * SCALE,
        terminals=TERMINALS * SCALE,
        events_per_day=EVENTS_PER_DAY * SCALE,
    )


def layout_of(job: Job, name: str) -> dict[str, Sequence[str]]:
    """Return workers by name, each with its stages."""
    hops = tuple(stage.name for stage in job.assembly.topology.stages)
    return {"both": hops} if name == "whole" else {hop: (hop,) for hop in hops}


@contextmanager
def observed(job: Job, layout: str) -> Iterator[tuple[WorkerGroup, Observer, MemoryWatch]]:
    """Run the workers, ready, with an observer of the predictions and a watch on their memory."""
    with (
        closing(Observer(job.kafka, PREDICTIONS, job.settings.partitions, lambda m: int(m.key() or b"-1"))) as observer,
        running_group(job, layout_of(job, layout)) as workers,
    ):
        yield workers, observer, MemoryWatch(workers.pids).start()


def measure_path(plan: BenchPlan, stack: Stack, track: Track) -> Measured:
    """Measure throughput."""
    measured = Measured({"events": plan.path_events, "layouts": {}})
    for layout in plan.layouts:
        job = reference_job(plan, stack)
        workload = reference_events(job, plan.path_events, plan.seed)
        with observed(job, layout) as (workers, observer, watch):
            name = LAYOUT_NAMES[layout]
            progress = track(f"whole path, {name}: publishing", plan.path_events)
            publish_backlog(job.kafka, job.input, workload, 0, plan.path_events, progress, at_once=True)
            progress = track(f"whole path, {name}: working off the backlog", plan.path_events)
            done = observer.throughput(plan.path_events, workers.pids.values(), plan.limit_s, workers.check, progress)
            everywhere = plan.path_events * len(job.assembly.topology.stages) * done.complete
            workers.wait(partial(_viewed, workers, everywhere), "done with the online view")
            figures = {
                **plain(done),
                "view_rows_written": workers.total("millstream_view_written_total"),
                "memory": watch.stop(),
                "phases": {name: phases(scraped, done.events_per_s) for name, scraped in workers.metrics().items()}
                if done.complete and done.events_per_s  # none where all came at once
                else {},
            }
        measured.figures["layouts"][layout] = figures
        if done.complete:
            measured.wrong += check(job, workload, plan.path_events)
        if done.doubled and stack.guarantee == "exactly_once":
            measured.wrong.append(f"{PREDICTIONS}: {done.doubled:,} are doubled")
        if not done.complete:
            measured.wrong.append(f"the time limit came after {done.events:,} of {plan.path_events:,} events")
    return measured


def _viewed(workers: WorkerGroup, events: int) -> bool:
    """Return whether so many events, over all stages, are counted and their rows are written to the online view.

    A micro-batch's rows are handed over after its commit, and before it is counted.
    """
    return workers.total("millstream_events_total") >= events and workers.total("millstream_view_pending") == 0


def path_method(plan: BenchPlan) -> list[str]:
    """Say how."""
    return [
        f"Job: the reference feature repo, two hops (customer, terminal), {plan.guarantee.replace('_', '-')}; scored, "
        "predictions, changelogs, dead letters, the Redis view and metrics on. A worker per stage; the long form adds "
        "one worker for both stages.",
        f"Backlog: {plan.path_events:,} events, published in one transaction to workers that wait; its commit shows "
        "them all at once. Events per second from the first to the last chunk of predictions that a read_committed "
        "consumer receives, the first chunk not counted; CPU of all workers in that time.",
        METHOD,
        f"Events: {CUSTOMERS * SCALE:,} customers, {TERMINALS * SCALE:,} terminals, {EVENTS_PER_DAY * SCALE:,} events "
        "a day of event time. Broker, Valkey, publisher and observer share the machine's cores.",
        ANSWERS,
    ]


def path_tables(figures: dict[str, Any]) -> list[Table]:
    """Return the figures as a table."""
    rows = [
        (
            LAYOUT_NAMES[layout],
            number(each["events_per_s"]),
            number(each["cpu_s_per_100k"], 2),
            number(each["view_rows_written"]),
            memory_text(each["memory"]),
        )
        for layout, each in figures["layouts"].items()
    ]
    columns = ("", "events/s", "CPU-s per 100 k events", "Redis rows", "MB per worker, peak / steady")
    spent = [
        phase_table(each["phases"])
        for layout, each in figures["layouts"].items()
        if layout == "split" and each.get("phases")
    ]
    return [Table(f"Whole path, {figures['events']:,} events", columns, rows), *spent]


def measure_latency(plan: BenchPlan, stack: Stack, track: Track) -> Measured:
    """Measure latency at steady rates."""
    measured = Measured({"layouts": {}})
    for layout in plan.layouts:
        job = reference_job(plan, stack)
        name, start = LAYOUT_NAMES[layout], plan.warm_up_events
        paced = sum(int(rate * plan.paced_s) for rate in plan.rates)
        workload = reference_events(job, start + paced, plan.seed)
        latencies = []
        with observed(job, layout) as (workers, observer, watch):
            publish_backlog(job.kafka, job.input, workload, 0, start, lambda _done: None, at_once=True)
            pids = workers.pids.values()
            warm = observer.throughput(start, pids, plan.limit_s, workers.check, track(f"{name}: warming up", start))
            for rate in plan.rates:
                progress = track(f"whole path, {name}: {rate:,} events/s", int(rate * plan.paced_s))
                latencies.append(observer.latency(workload, start, rate, plan.paced_s, job.input, pids, progress))
                workers.check()
                start += int(rate * plan.paced_s)
            memory = watch.stop()
        measured.figures["layouts"][layout] = {"rates": [plain(each) for each in latencies], "memory": memory}
        late = sum(each.missing for each in latencies) + plan.warm_up_events - warm.events
        if late:
            measured.wrong.append(f"{name}: {late:,} predictions were not there 2 s after the last event")
        else:
            measured.wrong += check(job, workload, start)
    return measured


def latency_method(plan: BenchPlan) -> list[str]:
    """Say how."""
    return [
        f"The whole path as above, {plan.guarantee.replace('_', '-')}, after {plan.warm_up_events:,} events to warm "
        f"up; {plan.paced_s:g} s at each rate.",
        "From the moment each event was due to be published to its prediction at a read_committed consumer, two hops "
        "and two transactions later; the first second left out; an event that never came is infinitely late.",
        ANSWERS,
    ]


def latency_tables(figures: dict[str, Any]) -> list[Table]:
    """Return the figures as a table."""
    rows = [
        (
            f"{LAYOUT_NAMES[layout]}, {each['rate']:,}/s",
            *(number(each[f"{percentile}_ms"], 1) for percentile in ("p50", "p95", "p99")),
            number(each["cpu_share"], 2),
            memory_text(found["memory"]),
        )
        for layout, found in figures["layouts"].items()
        for each in found["rates"]
    ]
    columns = ("", "p50 ms", "p95 ms", "p99 ms", "cores used by the workers", "MB per worker, peak / steady")
    return [Table("End to end, produce to prediction visible", columns, rows)]
