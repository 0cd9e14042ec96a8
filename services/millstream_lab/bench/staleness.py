"""How long after an event its row is readable in Redis."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import redis
from numpy.typing import NDArray

from millstream.adapters.feast.codec import ViewCodec
from millstream.adapters.feast.repo import open_store, quiet_feast
from millstream.core.declaration import View
from millstream_lab.bench.audit import check, features_of
from millstream_lab.bench.measure import publish_backlog, publish_paced
from millstream_lab.bench.path import observed, reference_events, reference_job
from millstream_lab.bench.plan import BenchPlan, Measured, Track
from millstream_lab.bench.stack import Job, Stack
from millstream_lab.bench.worker_group import WorkerGroup
from millstream_lab.bench.workload import Workload

_PROBES_PER_S = 50
_GRACE_S = 2.0
# Looking more often would take a good part of a core from what is measured.
_PAUSE_S = 0.004
_READ = 100


def measure_staleness(plan: BenchPlan, stack: Stack, track: Track) -> Measured:
    """Measure at each rate, and check what Feast reads in the end."""
    job = reference_job(plan, stack)
    start = plan.warm_up_events
    workload = reference_events(job, start + sum(int(rate * plan.paced_s) for rate in plan.rates), plan.seed)
    measured = Measured({"views": []})
    with observed(job, "split") as (workers, observer, watch):
        publish_backlog(job.kafka, job.input, workload, 0, start, lambda _done: None, at_once=True)
        pids = workers.pids.values()
        observer.throughput(start, pids, plan.limit_s, workers.check, track("online view: warming up", start))
        probes = np.empty(0, dtype=np.int64)
        for rate in plan.rates:
            count = int(rate * plan.paced_s)
            probes = probes_of(workload, start, start + count, int(_PROBES_PER_S * plan.paced_s), rate)
            progress = track(f"online view: {rate:,} events/s", len(probes))
            found = _watched(job, workers, workload, start, rate, count, probes, progress)
            measured.figures["views"] += found
            start += count
        measured.figures["memory"] = watch.stop()
        measured.figures["feast_read_ms"], wrong = _read(job, workload, probes)
        measured.wrong += wrong
    lost = sum(each["probes"] - each["found"] for each in measured.figures["views"])
    measured.wrong += [f"{lost} rows were not readable {_GRACE_S:g} s after the last event"] * (lost > 0)
    measured.wrong += check(job, workload, start)
    return measured


def probes_of(workload: Workload, start: int, end: int, most: int, skip: int = 0) -> NDArray[np.int64]:
    """Return events of [start + skip, end), in order, whose customer and terminal occur only once in [start, end)."""
    alone = np.ones(end - start, dtype=np.bool_)
    for keys in (workload.customers[start:end], workload.terminals[start:end]):
        _values, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
        alone &= counts[inverse] == 1
    alone[:skip] = False
    events: NDArray[np.int64] = start + np.flatnonzero(alone)
    spread: NDArray[np.int64] = np.unique(np.linspace(0, len(events) - 1, min(most, len(events))).astype(np.int64))
    chosen: NDArray[np.int64] = events[spread]
    return chosen


def _keys(view: View, workload: Workload) -> NDArray[np.int64]:
    return workload.customers if view.join_key == "customer_id" else workload.terminals


def _watched(
    job: Job,
    workers: WorkerGroup,
    workload: Workload,
    start: int,
    rate: int,
    count: int,
    probes: NDArray[np.int64],
    progress: Any,
) -> list[dict[str, Any]]:
    declaration = job.assembly.declaration
    due_s = time.monotonic() + 0.1 + np.arange(count) / rate
    waiting: dict[tuple[int, int], tuple[bytes, str]] = {}
    for number, view in enumerate(declaration.views):
        redis_keys = ViewCodec(declaration.project, view).keys(_keys(view, workload)[probes])
        for event, key in zip(probes.tolist(), redis_keys, strict=True):
            waiting[number, event] = (key, f"_ts:{view.name}")
    readable_s = {number: dict.fromkeys(probes.tolist(), np.inf) for number in range(len(declaration.views))}
    publisher = threading.Thread(
        target=publish_paced, args=(job.kafka, job.input, workload, start, due_s), name="publisher", daemon=True
    )
    publisher.start()
    with redis.Redis.from_url(job.stack.redis_url) as client:
        while waiting and time.monotonic() < due_s[-1] + _GRACE_S:
            now_s = time.monotonic()
            asked = [(at, where) for at, where in waiting.items() if due_s[at[1] - start] <= now_s]
            if asked:
                with client.pipeline(transaction=False) as pipeline:
                    for _at, where in asked:
                        pipeline.hget(*where)
                    answers = pipeline.execute()
                now_s = time.monotonic()
                for ((number, event), _where), answer in zip(asked, answers, strict=True):
                    if answer is not None and _micros(answer) >= int(workload.times_ms[event]) * 1000:
                        readable_s[number][event] = now_s
                        del waiting[number, event]
                workers.check()
                progress(len(probes) - len({event for _number, event in waiting}))
            time.sleep(_PAUSE_S)
    publisher.join()
    return [
        {"view": view.name, "rate": rate, **_percentiles(readable_s[number], due_s, start)}
        for number, view in enumerate(declaration.views)
    ]


def _percentiles(readable_s: dict[int, float], due_s: NDArray[np.float64], start: int) -> dict[str, Any]:
    waits_ms = np.array([(at_s - due_s[event - start]) * 1000 for event, at_s in readable_s.items()])
    found = waits_ms[np.isfinite(waits_ms)]
    # What never became readable counts as infinitely stale.
    percentiles = {f"p{q}_ms": float(np.percentile(waits_ms, q, method="higher")) for q in (50, 95, 99)}
    return {
        **{name: value if np.isfinite(value) else None for name, value in percentiles.items()},
        "probes": len(waits_ms),
        "found": len(found),
    }


def _micros(stamp: bytes) -> int:
    from google.protobuf.timestamp_pb2 import Timestamp

    return int(Timestamp.FromString(stamp).ToMicroseconds())


def _read(job: Job, workload: Workload, probes: NDArray[np.int64]) -> tuple[float, list[str]]:
    """Read the last probes' rows through Feast one by one; return the median time, ms, and what is wrong."""
    chosen = probes[-_READ:].tolist()
    (view,) = job.assembly.topology.stages[0].views
    names = [a.feature for a in view.aggregates]
    spent_ms, different = [], 0
    with quiet_feast():
        store = open_store(job.settings)
        for event in chosen:
            key = int(workload.customers[event])
            started_s = time.monotonic()
            answer = store.get_online_features(
                [f"{view.name}:{name}" for name in names], [{view.join_key: key}]
            ).to_dict()
            spent_ms.append((time.monotonic() - started_s) * 1000)
            history = np.flatnonzero(workload.customers[: event + 1] == key)
            got = [answer[name][0] if answer[name][0] is not None else np.nan for name in names]
            different += not np.allclose(got, features_of(view, workload, history), rtol=1e-9, atol=0)
    wrong = [f"{different} of {len(chosen)} rows read through Feast are wrong"] * (different > 0)
    return float(np.median(spent_ms)), wrong
