"""The learner is killed while it learns: its model ends as the uninterrupted one's, bit for bit."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cards import events
from running import Workers, committed, wait_until

from services.adapters import endpoints as servers
from services.adapters.river_pipelines import FILE, load
from services.adapters.river_snapshot import signing_key
from services.cli.assembly import Assembly
from services.cli.replaying import History
from services.cli.setup import initialise
from services.core.avro.decode import RecordReader
from services.core.avro.encode import RecordWriter
from services.core.batch import Batch
from services.learn.learner import Learner
from services.settings import Settings, load_settings
from services.topology import EXAMPLES, SNAPSHOTS
from services.transport.kafka_log import KafkaLog
from services.transport.records import Output

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

EVENTS = 1_500
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A stack of its own: this test owns the real topics."""
    made = load_settings({}, state_dir=tmp_path_factory.mktemp("learn"))
    servers.start(made, print)
    yield made
    servers.stop(made)


def _examples(assembly: Assembly) -> Batch:
    """Return examples as the join would publish them: scored records with a label, some of them taken back."""
    rng = np.random.default_rng(4)
    scored = History(assembly).feed(events(EVENTS, seed=4)).scored
    known_ms = scored.columns["event_time_ms"] + 7 * DAY_MS
    ones = np.ones(scored.length, dtype=np.int64)
    columns = {
        "event_id": np.array([str(each) for each in scored.columns["transaction_id"].tolist()], dtype=object),
        "label": (scored.columns["amount"] > rng.uniform(100, 300, scored.length)).astype(np.float64),
        "label_known_at_ms": known_ms,
        "label_source": np.full(scored.length, "bank", dtype=object),
        "label_delay_s": 7 * 86_400 * ones,
        "revision": ones,
        "previous_label": np.zeros(scored.length),
        "previous_known_at_ms": np.zeros(scored.length, dtype=np.int64),
        "joined_at_ms": known_ms,
    }
    none = np.ones(scored.length, dtype=np.bool_)
    nulls = {"label": rng.random(scored.length) < 0.05, "previous_label": none, "previous_known_at_ms": none}
    return scored.with_columns(columns, nulls)


def test_a_killed_learner_ends_as_the_uninterrupted_one(settings: Settings) -> None:
    rng = random.Random(9)
    kafka = servers.resolve(settings).kafka
    assembly = initialise(settings, print)
    batch = _examples(assembly)
    values = RecordWriter(assembly.examples_schema).encode(batch)
    writer = KafkaLog(kafka, group="test", transactional_id="test", exactly_once=True, transaction_timeout_ms=10_000)
    workers = Workers(Path(settings.state_dir), {"MILLSTREAM_CHECKPOINT_INTERVAL_MS": "300"})
    try:
        workers.start("learner", ["learn"])
        wait_until(lambda: workers.ready("learner"), 60, workers)
        for start in range(0, len(values), 300):
            part = values[start : start + 300]
            writer.send([Output(EXAMPLES, [b"k"] * len(part), part, 0)])
            writer.commit({})
            time.sleep(rng.uniform(0.2, 1.2))
            if start < 900:
                workers.kill("learner")
                workers.start("learner", ["learn"])
        wait_until(lambda: _offset(settings, assembly) >= _end(kafka), 90, workers)
        wait_until(lambda: workers.ready("learner"), 60, workers)
        assert workers.stop("learner") == 0
    finally:
        workers.end()
        writer.close()

    declared = load(settings.feature_repo / FILE, assembly.declaration.service)
    uninterrupted = Learner(declared)
    messages = committed(kafka, EXAMPLES)
    read = RecordReader(assembly.examples_schema, assembly.resolver()).decode([m.value() for m in messages], 1 << 30)
    offsets = np.array([m.offset() for m in messages])
    uninterrupted.learn(read.batch, "label", "examples[0]", offsets)
    restored = Learner(declared)
    restored.restore(_newest(kafka), signing_key(None, settings.state_dir))
    assert restored.examples == uninterrupted.examples == int((~batch.is_null("label")).sum())
    assert restored.figures() == uninterrupted.figures()
    assert restored.scorer().score(read.batch).tobytes() == uninterrupted.scorer().score(read.batch).tobytes()


def _newest(kafka: dict[str, str]) -> bytes:
    return committed(kafka, SNAPSHOTS)[-1].value() or b""


def _offset(settings: Settings, assembly: Assembly) -> int:
    """Return how far the newest snapshot has come."""
    if not committed(servers.resolve(settings).kafka, SNAPSHOTS):
        return -1
    learner = Learner(load(settings.feature_repo / FILE, assembly.declaration.service))
    learner.restore(_newest(servers.resolve(settings).kafka), signing_key(None, settings.state_dir))
    return learner.offsets["examples[0]"]


def _end(kafka: dict[str, str]) -> int:
    return int(committed(kafka, EXAMPLES)[-1].offset() or 0) + 1
