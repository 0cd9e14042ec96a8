"""Where labels meet predictions: the stage on a broker, and the ledger alone with millions pending."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from typing import Any

import numpy as np

from millstream.app.replaying import CHUNK_RECORDS, History
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.core.text import as_text
from millstream.topology import EXAMPLES, JOIN, LABELS, SCORED
from millstream_lab.bench.ledger import measure
from millstream_lab.bench.measure import Observer, plain, publish_topics
from millstream_lab.bench.memory import MemoryWatch
from millstream_lab.bench.path import reference_events, reference_job
from millstream_lab.bench.plan import BenchPlan, Measured, Track, memory_text, number
from millstream_lab.bench.stack import Job, Stack, as_it_is
from millstream_lab.bench.worker_group import running_group
from millstream_lab.tables import Table

_SAMPLE = 500
_DELAY_MS = 7 * 86_400_000
_MANY = 1 << 30


def measure_join(plan: BenchPlan, stack: Stack, track: Track) -> Measured:
    """Measure how fast a backlog of predictions and their labels becomes examples."""
    job = reference_job(plan, stack)
    scored, labels = scored_and_labels(job, plan.join_events, plan.seed, track)
    events = scored.columns[job.assembly.contract.event_id]
    published = {
        SCORED: (as_text(events), RecordWriter(job.assembly.topology.stages[-1].output_schema).encode(scored)),
        LABELS: (
            as_text(labels.columns["event_id"]),
            RecordWriter(job.assembly.contracts[LABELS].schema).encode(labels),
        ),
    }
    sample = frozenset(np.random.default_rng(plan.seed).choice(events, min(_SAMPLE, len(events)), False).tolist())
    with (
        closing(Observer(job.kafka, EXAMPLES, 1, lambda m: int(m.key() or b"-1"), sample)) as observer,
        running_group(job, {JOIN: (JOIN,)}) as workers,
    ):
        watch = MemoryWatch(workers.pids).start()
        progress = track("join: publishing", 2 * plan.join_events)
        publish_topics(job.kafka, published, progress, at_once=True)
        progress = track("join: working off the backlog", plan.join_events)
        done = observer.throughput(plan.join_events, workers.pids.values(), plan.limit_s, workers.check, progress)
        memory = watch.stop()
    wrong = wrong_examples(job, scored, labels, observer.kept)
    if done.doubled and stack.guarantee == "exactly_once":
        wrong.append(f"{EXAMPLES}: {done.doubled:,} are doubled")
    if not done.complete:
        wrong.append(f"the time limit came after {done.events:,} of {plan.join_events:,} examples")
    return Measured({**plain(done), "memory": memory}, wrong)


def scored_and_labels(job: Job, count: int, seed: int, track: Track) -> tuple[Batch, Batch]:
    """Return predictions as the path makes them, and a label of each in another order; event ids count from 0."""
    workload, contract = reference_events(job, count, seed), job.assembly.contract
    events = RecordReader(contract.schema, lambda _id: None).decode(workload.values, _MANY).batch
    history, progress = History(job.assembly), track("join: replaying what is to be joined", count)
    chunks = []
    for start in range(0, count, CHUNK_RECORDS):
        chunks.append(history.feed(events.take(np.arange(start, min(start + CHUNK_RECORDS, count)))).scored)
        progress(start)
    names = list(chunks[0].columns)
    nulls = {
        name: np.concatenate([each.is_null(name) for each in chunks])
        for name in {name for each in chunks for name in each.nulls}
    }
    columns = {name: np.concatenate([each.columns[name] for each in chunks]) for name in names}
    scored = Batch(count, columns, nulls)
    random = np.random.default_rng(seed)
    order = random.permutation(count)
    ids = np.array([key.decode() for key in as_text(scored.columns[contract.event_id])], dtype=object)
    columns = {
        "event_id": ids[order],
        "label": (random.random(count) < 0.01).astype(np.float64),
        "known_at_ms": scored.columns[contract.event_time][order] + _DELAY_MS,
        "source": np.full(count, "bank", dtype=object),
        "kind": np.full(count, "new", dtype=object),
    }
    return scored, Batch(count, columns)


def wrong_examples(job: Job, scored: Batch, labels: Batch, kept: dict[int, bytes]) -> list[str]:
    """Return in words how many of these examples do not say what was served and what became known."""
    if not kept:
        return [f"no record of {EXAMPLES} was looked at"]
    found = RecordReader(job.assembly.examples_schema, job.assembly.resolver()).decode(list(kept.values()), _MANY).batch
    event_id = job.assembly.contract.event_id
    label = dict(zip(labels.columns["event_id"], labels.columns["label"].tolist(), strict=True))
    place = {event: at for at, event in enumerate(scored.columns[event_id].tolist())}
    served = scored.take(np.array([place[event] for event in found.columns[event_id].tolist()], dtype=np.int64))
    right = found.columns["label"] == np.array([label[each] for each in found.columns["event_id"]])
    for name in served.columns:
        same = (found.columns[name] == served.columns[name]) | served.is_null(name)
        right &= same & (found.is_null(name) == served.is_null(name))
    count = int((~right).sum())
    return [f"{count:,} of {len(kept):,} examples do not say what was served and what became known"] * (count > 0)


def join_method(plan: BenchPlan) -> list[str]:
    """Say how."""
    return [
        f"{plan.join_events:,} predictions of the reference repo, and a label of each in another order, published in "
        "one transaction to a worker of the stage join that waits, exactly once; twice as many records as examples. "
        "Examples per second from the first to the last chunk that a read_committed consumer receives, the first "
        "not counted. Broker and observer share the machine's cores.",
        f"Answers: every event has one example; {_SAMPLE} examples, field by field, against what was published.",
    ]


def join_tables(figures: dict[str, Any]) -> list[Table]:
    """Return the figures as a table."""
    row = (
        f"{figures['events']:,} predictions and labels",
        number(figures["events_per_s"]),
        number(2 * figures["events_per_s"]),
        number(figures["cpu_s_per_100k"], 2),
        memory_text(figures["memory"]),
    )
    columns = ("", "examples/s", "records/s", "CPU-s per 100 k examples", "MB, peak / steady")
    return [Table("Labels meet predictions", columns, [row])]


def measure_ledger(plan: BenchPlan, stack: Stack, track: Track) -> Measured:
    """Measure a ledger with many predictions pending, in this process."""
    contracts = as_it_is(stack, plan.reference_repo, plan.partitions).assembly.contracts
    total = plan.ledger_pending + plan.ledger_joins
    progress = track(f"ledger: {plan.ledger_pending:,} predictions pending, then labels", total)
    found = measure(
        stack.state_dir / "ledger", contracts[EXAMPLES], contracts[LABELS], plan.ledger_pending, plan.ledger_joins,
        progress=lambda share: progress(int(share * total)),
    )  # fmt: skip
    return Measured({**asdict(found), "fill_rss_bytes": list(found.fill_rss_bytes)})


def ledger_method(plan: BenchPlan) -> list[str]:
    """Say how."""
    return [
        f"{plan.ledger_pending:,} predictions with 25 features, event ids in no order, are taken up in batches of "
        f"5,000 without a label; then {plan.ledger_joins:,} labels of random ones come among as many new "
        "predictions, and each must become an example. Records are decoded and encoded; Kafka is left out. One "
        "process; its resident memory, with all that it has imported and run before.",
    ]


def ledger_tables(figures: dict[str, Any]) -> list[Table]:
    """Return the figures as a table, and the memory after each tenth."""
    pending, resident = figures["pending"], figures["fill_rss_bytes"]
    rows = [
        ("predictions taken up per second", number(figures["fill_per_s"])),
        ("records per second while labels come", number(figures["join_per_s"])),
        ("disk, MB", number(figures["disk_bytes"] / 1e6)),
        ("disk, bytes per prediction (the record has " + f"{figures['record_bytes']})",
         number(figures["disk_bytes"] / pending)),
        ("memory after a tenth, half, all, at the end, MB", " / ".join(
            number(each / 1e6) for each in (resident[0], resident[len(resident) // 2 - 1], resident[-1],
                                            figures["join_rss_bytes"]))),
    ]  # fmt: skip
    return [Table(f"{pending:,} predictions pending", ("", ""), rows)]
