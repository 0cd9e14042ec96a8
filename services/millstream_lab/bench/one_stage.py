"""The one-stage job, both sides in one run on one broker: throughput from a backlog, then latency at steady rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from millstream.app.worker_processes import running_worker
from millstream.errors import Stop
from millstream_lab.bench import scrape
from millstream_lab.bench.audit import SAMPLE, sample_of
from millstream_lab.bench.measure import Latency, Observer, Throughput, plain, publish_backlog
from millstream_lab.bench.memory import MemoryWatch
from millstream_lab.bench.model import LEAVES, TREES
from millstream_lab.bench.oracle import read_answer, wrong_answers
from millstream_lab.bench.phases import METHOD, phase_table, phases
from millstream_lab.bench.plan import BenchPlan, Measured, Track, memory_text, number
from millstream_lab.bench.sides import FEATURE_REPO, Side, create_topics, faust_side, millstream_side
from millstream_lab.bench.stack import Stack, set_up
from millstream_lab.bench.workload import CUSTOMERS, EVENTS_PER_DAY, Workload, generate
from millstream_lab.tables import Table

HARNESS = "the measuring harness alone"


@dataclass
class SideResult:
    """One side, measured; ``checked`` outputs were compared with the oracle, ``wrong`` lists those that differed."""

    name: str
    guarantee: str
    how: str
    throughput: Throughput | None = None
    latencies: list[Latency] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)
    checked: int = 0
    wrong: list[str] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "name": self.name,
            "guarantee": self.guarantee,
            "how": self.how,
            "throughput": None if self.throughput is None else plain(self.throughput),
            "latency": [plain(each) for each in self.latencies],
            "memory": self.memory,
            "phases": self.phases,
            "checked": self.checked,
            "wrong": self.wrong,
        }


def measure_one_stage(plan: BenchPlan, stack: Stack, track: Track) -> Measured:
    """Measure both sides and the harness alone.

    Raises
    ------
    Misconfigured, Retry, Stop
        Saying which part failed.
    """
    job = set_up(stack, FEATURE_REPO, plan.partitions)
    paced = int(sum(rate * plan.paced_s for rate in plan.rates))
    workload = generate(max(plan.events, plan.faust_events) + paced, job.schema, plan.seed)
    results = []
    if "millstream" in plan.sides:
        side = millstream_side(job.environ("millstream"), stack.guarantee, job.assembly)
        results.append(_measure(plan, side, plan.events, job.kafka, workload, job.model_file, stack.state_dir, track))
    if "faust" in plan.sides:
        side = faust_side(job.kafka, stack.state_dir, job.schema, job.model_file, plan.partitions)
        events = plan.faust_events
        results.append(_measure(plan, side, events, job.kafka, workload, job.model_file, stack.state_dir, track))
    if plan.rates:
        results.append(_harness_alone(plan, job.kafka, workload, track))
    return Measured({"sides": [result.as_json() for result in results], "ratio": ratios(results)}, complaints(results))


def _measure(
    plan: BenchPlan,
    side: Side,
    events: int,
    kafka: Mapping[str, str],
    workload: Workload,
    model_file: Path,
    state_dir: Path,
    track: Track,
) -> SideResult:
    result = SideResult(side.name, side.guarantee, side.how)
    publish_backlog(kafka, side.input, workload, 0, events, track(f"{side.name}: publishing the backlog", events))
    sample = sample_of(0, events)
    observer = Observer(kafka, side.output, plan.partitions, side.event_of, sample)
    name = side.name.replace(" ", "-")
    with closing(observer), running_worker(name, side.command, side.environ, model_file.parent) as worker:
        watch = MemoryWatch({name: worker.pid}).start()
        progress = track(f"{side.name}: working off the backlog", events)
        result.throughput = observer.throughput(events, [worker.pid], plan.limit_s, worker.check, progress)
        scraped = scrape.metrics(state_dir, name, worker.pid)
        if scraped and result.throughput.complete and result.throughput.events_per_s:
            result.phases = phases(scraped, result.throughput.events_per_s)
        start = events
        for rate in plan.rates if result.throughput.complete else ():
            count = int(rate * plan.paced_s)
            progress = track(f"{side.name}: {rate:,} events/s", count)
            result.latencies.append(
                observer.latency(workload, start, rate, plan.paced_s, side.input, [worker.pid], progress)
            )
            worker.check()
            start += count
            if result.latencies[-1].falls_behind:
                break
        result.memory = watch.stop()
    answers = {event: read_answer(value, side.output_schema) for event, value in observer.kept.items()}
    result.checked, result.wrong = len(answers), wrong_answers(workload, answers, str(model_file))
    if result.throughput.complete and result.checked != len(sample):
        raise Stop(f"{side.name}: {len(sample) - result.checked} sampled outputs were not kept; the harness is wrong")
    return result


def _harness_alone(plan: BenchPlan, kafka: Mapping[str, str], workload: Workload, track: Track) -> SideResult:
    """Measure the time that publishing and observing take by themselves, with no job between."""
    topic = "bench-echo"
    create_topics(kafka, (topic,), plan.partitions)
    used = sum(int(rate * plan.paced_s) for rate in plan.rates)
    by_value = {value: event for event, value in enumerate(workload.values[:used])}
    result = SideResult(HARNESS, "", "no job; events read back from their own topic")
    with closing(Observer(kafka, topic, plan.partitions, lambda message: by_value[message.value() or b""])) as observer:
        start = 0
        for rate in plan.rates:
            count = int(rate * plan.paced_s)
            progress = track(f"harness alone: {rate:,} events/s", count)
            result.latencies.append(observer.latency(workload, start, rate, plan.paced_s, topic, (), progress))
            start += count
    return result


def ratios(results: Sequence[SideResult]) -> dict[str, float | None] | None:
    """Return how many times Faust's events/s ours are, and how many times our CPU time per event Faust's is."""
    measured = {result.name: result.throughput for result in results if result.throughput is not None}
    ours, theirs = measured.get("millstream"), measured.get("stock Faust")
    if ours is None or theirs is None or not theirs.events_per_s:
        return None
    return {
        "events_per_s": ours.events_per_s / theirs.events_per_s,
        "cpu_per_event": theirs.cpu_s_per_100k / ours.cpu_s_per_100k if ours.cpu_s_per_100k else None,
    }


def complaints(results: Sequence[SideResult]) -> list[str]:
    """Return what is wrong with either side's answers."""
    wrong = [f"{result.name}: {sentence}" for result in results for sentence in result.wrong]
    for result in results:
        if result.throughput is not None and result.throughput.doubled and result.guarantee == "exactly-once":
            wrong.append(f"{result.name}: {result.throughput.doubled:,} outputs are doubled")
    return wrong


def one_stage_method(plan: BenchPlan) -> list[str]:
    """Say how."""
    return [
        "Job: Avro in; count and mean amount over 1, 7 and 30 days per customer, event time, current event included; "
        f"LightGBM, {TREES} trees of {LEAVES} leaves; Avro out with features and score. One worker, {plan.partitions} "
        f"partitions, {CUSTOMERS:,} customers, {EVENTS_PER_DAY:,} events a day of event time.",
        f"Backlog: {plan.events:,} events, for Faust the first {plan.faust_events:,} of them (its histories are "
        "shorter, which is to its favour), published before the worker starts. Events per second from the first to the "
        "last chunk of outputs that a read_committed consumer receives, the first chunk not counted; CPU of the "
        "worker's process tree in that time. Broker, publisher and observer share the machine's cores.",
        f"Latency: {plan.paced_s:g} s at each rate, from the moment each event was due to be published to its output "
        "at the read_committed consumer; the first second left out; an event that never came is infinitely late.",
        f"Answers: {SAMPLE} outputs per side, spread over the backlog, against a brute-force oracle.",
        METHOD,
    ]


def one_stage_tables(figures: dict[str, Any]) -> list[Table]:
    """Return the figures as a table, and the ratios."""
    sides = figures["sides"]
    rates = sorted({each["rate"] for side in sides for each in side["latency"]})

    def row(title: str, show: Callable[[dict[str, Any]], str]) -> tuple[str, ...]:
        return (title, *(show(side) for side in sides))

    rows = [
        row("guarantee", lambda side: str(side["guarantee"])),
        row("events/s", lambda side: _throughput(side, "events_per_s", 0)),
        row("CPU-s per 100 k events", lambda side: _throughput(side, "cpu_s_per_100k", 2)),
        row("MB, peak / steady", lambda side: memory_text(side["memory"])),
        *(row(f"p50 / p99 ms at {rate:,}/s", lambda side, rate=rate: _latency(side, rate)) for rate in rates),  # type: ignore[misc]
        row(
            "answers checked / wrong", lambda side: f"{side['checked']} / {len(side['wrong'])}" * bool(side["checked"])
        ),
        row("backlog worked off", _completeness),
    ]
    tables = [Table("One-stage job", ("", *(side["name"] for side in sides)), rows)]
    if figures["ratio"] is not None:
        ratio = figures["ratio"]
        row_of = [
            ("events per second, ours to Faust's", number(ratio["events_per_s"], 1)),
            ("CPU time per event, Faust's to ours", number(ratio["cpu_per_event"], 1)),
        ]
        tables.append(Table("Against stock Faust, same run", ("", "times"), row_of))
    spent = {side["name"]: side["phases"] for side in sides if side.get("phases")}
    if spent:
        tables.append(phase_table(spent))
    return tables


def _throughput(side: dict[str, Any], figure: str, digits: int) -> str:
    return "" if side["throughput"] is None else number(side["throughput"][figure], digits)


def _completeness(side: dict[str, Any]) -> str:
    done = side["throughput"]
    if done is None:
        return ""
    doubled: str = f", {done['doubled']:,} doubled" * (done["doubled"] > 0)
    return f"{'all' if done['complete'] else format(done['events'], ',') + ' in the time limit'}{doubled}"


def _latency(side: dict[str, Any], rate: int) -> str:
    for each in side["latency"]:
        if each["rate"] == rate:
            return "falls behind" if each["falls_behind"] else f"{number(each['p50_ms'])} / {number(each['p99_ms'])}"
    return "not tried: fell behind before" if side["latency"] else "-"
