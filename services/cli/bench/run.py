"""The one-stage job, both sides in one run on one broker: throughput from a backlog, then latency at steady rates."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from services.adapters import endpoints
from services.adapters.contracts import load_contract
from services.cli.bench.measure import Latency, Observer, Progress, Throughput, plain, publish_backlog
from services.cli.bench.model import LEAVES, TREES, train_model
from services.cli.bench.oracle import read_answer, wrong_answers
from services.cli.bench.promotion import promote
from services.cli.bench.sides import FEATURE_REPO, Side, create_topics, faust_side, millstream_side, own_environ
from services.cli.bench.worker import running
from services.cli.bench.workload import CUSTOMERS, EVENTS_PER_DAY, Workload, generate
from services.cli.setup import initialise
from services.core.avro.schema import Schema
from services.errors import Stop
from services.settings import Settings, load_settings

_SAMPLE = 300
Track = Callable[[str, int], Progress]


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """What to measure.

    Parameters
    ----------
    events, faust_events : int
        Backlog of each side; Faust's is the beginning of the same events.
    rates : sequence of int
        Events per second of the paced parts.
    paced_s : float
        Length of each.
    limit_s : float
        A backlog is watched no longer.
    sides : set of str
        ``millstream``, ``faust``.
    """

    events: int = 400_000
    faust_events: int = 40_000
    rates: Sequence[int] = (1000, 5000)
    paced_s: float = 10.0
    limit_s: float = 60.0
    seed: int = 7
    partitions: int = 4
    guarantee: str = "exactly_once"
    sides: frozenset[str] = frozenset({"millstream", "faust"})


@dataclass
class SideResult:
    """One side, measured; ``checked`` outputs were compared with the oracle, ``wrong`` says which differed."""

    name: str
    guarantee: str
    how: str
    throughput: Throughput | None = None
    latencies: list[Latency] = field(default_factory=list)
    checked: int = 0
    wrong: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "name": self.name,
            "guarantee": self.guarantee,
            "how": self.how,
            "throughput": None if self.throughput is None else plain(self.throughput),
            "latency": [plain(each) for each in self.latencies],
            "checked": self.checked,
            "wrong": self.wrong,
        }


@contextmanager
def _own_stack(plan: BenchPlan, state_dir: Path, say: Callable[[str], None]) -> Iterator[Settings]:
    # Settings are read from the environment; the operator's endpoints must not be among them.
    kept = dict(os.environ)
    os.environ.clear()
    os.environ.update(own_environ())
    settings = load_settings(
        {}, state_dir=state_dir, feature_repo=FEATURE_REPO, partitions=plan.partitions, guarantee=plan.guarantee
    )
    try:
        endpoints.start(settings, say)
        yield settings
    finally:
        endpoints.stop(settings, say)
        os.environ.clear()
        os.environ.update(kept)


def run_bench(plan: BenchPlan, state_dir: Path, say: Callable[[str], None], track: Track) -> dict[str, Any]:
    """Measure and return the report as JSON values.

    Parameters
    ----------
    state_dir : Path
        Empty directory for the benchmark's own servers.
    say, track : callables
        Told each step; asked for a progress callback per counted step.

    Raises
    ------
    Misconfigured, Retry, Stop
        Saying which part failed.
    """
    with _own_stack(plan, state_dir, say) as settings:
        # A broker just started makes clients try again; that is no news.
        kafka = {**endpoints.resolve(settings).kafka, "log_level": "3"}
        schema = load_contract(settings, "transactions").schema
        say(f"making {max(plan.events, plan.faust_events):,} events and a model of {TREES} trees")
        paced = int(sum(rate * plan.paced_s for rate in plan.rates))
        workload = generate(max(plan.events, plan.faust_events) + paced, schema, plan.seed)
        model_file = state_dir / "model.txt"
        train_model(plan.seed).save_model(str(model_file))
        results = []
        if "millstream" in plan.sides:
            assembly = initialise(settings, say)
            promote(kafka, assembly.declaration.service, model_file.read_text())
            side = millstream_side(state_dir, assembly)
            results.append(_measure(plan, side, plan.events, kafka, workload, model_file, track))
        if "faust" in plan.sides:
            side = faust_side(kafka, state_dir, schema, model_file, plan.partitions)
            results.append(_measure(plan, side, plan.faust_events, kafka, workload, model_file, track))
        if plan.rates:
            results.append(_harness_alone(plan, kafka, workload, schema, track))
    return {"method": _method(plan), "sides": [result.as_json() for result in results], **_ratios(results)}


def _measure(
    plan: BenchPlan, side: Side, events: int, kafka: dict[str, str], workload: Workload, model_file: Path, track: Track
) -> SideResult:
    result = SideResult(side.name, side.guarantee, side.how)
    publish_backlog(kafka, side.input, workload, 0, events, track(f"{side.name}: publishing the backlog", events))
    sample = frozenset(np.unique(np.linspace(0, events - 1, _SAMPLE).astype(int)).tolist())
    observer = Observer(kafka, side.output, plan.partitions, side.event_of, sample)
    with (
        closing(observer),
        running(side.name.replace(" ", "-"), side.command, side.environ, model_file.parent) as worker,
    ):
        progress = track(f"{side.name}: working off the backlog", events)
        result.throughput = observer.throughput(events, worker.pid, plan.limit_s, worker.alive, progress)
        start = events
        for rate in plan.rates if result.throughput.complete else ():
            count = int(rate * plan.paced_s)
            progress = track(f"{side.name}: {rate:,} events/s", count)
            result.latencies.append(
                observer.latency(workload, start, rate, plan.paced_s, side.input, worker.pid, progress)
            )
            worker.alive()
            start += count
            if result.latencies[-1].falls_behind:
                break
    answers = {event: read_answer(value, side.output_schema) for event, value in observer.kept.items()}
    result.checked, result.wrong = len(answers), wrong_answers(workload, answers, str(model_file))
    if result.throughput.complete and result.checked != len(sample):
        raise Stop(f"{side.name}: {len(sample) - result.checked} sampled outputs were not kept; the harness is wrong")
    return result


def _harness_alone(
    plan: BenchPlan, kafka: dict[str, str], workload: Workload, schema: Schema, track: Track
) -> SideResult:
    """Measure the time that publishing and observing take by themselves, with no job between."""
    topic = "bench-echo"
    create_topics(kafka, (topic,), plan.partitions)
    used = sum(int(rate * plan.paced_s) for rate in plan.rates)
    by_value = {value: event for event, value in enumerate(workload.values[:used])}
    result = SideResult("the measuring harness alone", "", f"no job; {schema.name} read back from its own topic")
    with closing(Observer(kafka, topic, plan.partitions, lambda message: by_value[message.value() or b""])) as observer:
        start = 0
        for rate in plan.rates:
            count = int(rate * plan.paced_s)
            progress = track(f"harness alone: {rate:,} events/s", count)
            result.latencies.append(observer.latency(workload, start, rate, plan.paced_s, topic, None, progress))
            start += count
    return result


def _ratios(results: Sequence[SideResult]) -> dict[str, Any]:
    measured = {result.name: result.throughput for result in results if result.throughput is not None}
    ours, theirs = measured.get("millstream"), measured.get("stock Faust")
    if ours is None or theirs is None or not theirs.events_per_s:
        return {"ratio": None}
    return {
        "ratio": {
            "events_per_s": ours.events_per_s / theirs.events_per_s,
            "cpu_per_event": theirs.cpu_s_per_100k / ours.cpu_s_per_100k if ours.cpu_s_per_100k else None,
        }
    }


def _method(plan: BenchPlan) -> dict[str, Any]:
    return {
        "job": "Avro in; count and mean amount over 1, 7 and 30 days per customer, event time, current event included; "
        f"LightGBM, {TREES} trees of {LEAVES} leaves; Avro out with features and score. One worker.",
        "backlog": "Published before the worker starts. Events per second from the first to the last chunk of outputs "
        "that a read_committed consumer receives, the first chunk not counted; CPU of the worker's process tree in "
        "that time. Broker, publisher and observer share the machine's cores.",
        "latency": "From the moment each event was due to be published to its output at the read_committed consumer; "
        "the first second left out; an event that never came is infinitely late.",
        "answers": f"{_SAMPLE} outputs per side, spread over the backlog, against a brute-force oracle.",
        "events": plan.events,
        "faust_events": plan.faust_events,
        "faust_note": "Faust gets the beginning of the same events: its histories are shorter, which is to its favour.",
        "customers": CUSTOMERS,
        "events_per_day": EVENTS_PER_DAY,
        "partitions": plan.partitions,
        "rates": list(plan.rates),
        "paced_s": plan.paced_s,
        "seed": plan.seed,
        "settings": {name: value for name, value in own_environ().items() if name.startswith("MILLSTREAM_")},
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "libraries": {
            name: version(name) for name in ("faust-streaming", "aiokafka", "confluent-kafka", "lightgbm", "numba")
        },
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
