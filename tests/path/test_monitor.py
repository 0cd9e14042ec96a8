"""Both stages of monitoring are killed while they work: the alerts are those of an undisturbed run, each once."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Message

from fakes_models import a_manifest
from millstream.adapters.embedded import endpoints as servers
from millstream.adapters.kafka.promotions import publish
from millstream.adapters.kafka.topics import partition_counts
from millstream.app.assembly import Assembly
from millstream.app.monitoring import measure_stage, monitor_stage
from millstream.app.setup import initialise
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.drift.declared import Monitors
from millstream.core.models.manifest import sha256
from millstream.ports import ModelVersion
from millstream.runtime.dead_letters import DeadLetterLimit
from millstream.runtime.log.kafka_log import KafkaLog
from millstream.runtime.log.memory_log import MemoryBroker, MemoryLog, Partition
from millstream.runtime.log.records import Output
from millstream.runtime.loop import LoopLimits, StageLoop
from millstream.runtime.observer import Unobserved
from millstream.settings import Settings, load_settings
from millstream.topology import ALERTS, EXAMPLES, MEASURE, MEASURES, MODELS, MONITOR, MONITOR_CHANGELOG, SCORED
from running import Workers, committed, wait_until
from watched import DAY_MS, HOUR_MS, START_MS, examples, reference, scored, traffic

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

NAMES = (
    "customer_activity__customer_mean_amount_1d",
    "terminal_activity__terminal_mean_amount_1d",
    "terminal_activity__terminal_mean_amount_7d",
)
MONITORS = Monitors(windows_ms=(6 * HOUR_MS, 24 * HOUR_MS))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A stack of its own: this test owns the real topics."""
    made = load_settings({}, state_dir=tmp_path_factory.mktemp("monitor"))
    servers.start(made, print)
    yield made
    servers.stop(made)


def test_killed_monitors_tell_the_alerts_of_an_undisturbed_run_once(settings: Settings) -> None:
    rng = random.Random(7)
    kafka = servers.resolve(settings).kafka
    assembly = initialise(settings, print)
    model = assembly.declaration.service.name
    manifest = a_manifest("body", model=model, reference=reference(NAMES, MONITORS)).to_json()
    publish(kafka, ModelVersion(model, 1, manifest, "body", sha256("body")), 1)
    moved_ms, turned_ms = (START_MS + 2 * DAY_MS, START_MS + 3 * DAY_MS), START_MS + 2 * DAY_MS
    seen = traffic(5, moved_ms=moved_ms, turned_ms=turned_ms, seed=8)
    batch = scored(assembly.topology.stages[-1].output_schema, NAMES, model, seen)
    known = RecordWriter(assembly.examples_schema).encode(examples(batch, seen, assembly.contract.event_id))
    values = RecordWriter(assembly.topology.stages[-1].output_schema).encode(batch)
    # Without transactions, whose markers take offsets: an alert names those of its evidence, and so does its id.
    writer = KafkaLog(kafka, group="test", transactional_id="test", exactly_once=False, transaction_timeout_ms=10_000)
    workers = Workers(Path(settings.state_dir), {"MILLSTREAM_CHECKPOINT_INTERVAL_MS": "300"})
    stages = {"counting": [MEASURE], "telling": [MONITOR]}
    step = 1_200
    try:
        for name, names in stages.items():
            workers.start(name, names)
        for start in range(0, len(values), step):
            part = slice(start, start + step)
            keys = [b"%d" % i for i in range(start, min(start + step, len(values)))]
            writer.send([Output(SCORED, keys, values[part]), Output(EXAMPLES, keys, known[part], 0)])
            writer.commit({})
            if start in {2 * step, 4 * step}:
                victims = rng.sample(sorted(stages), 2 if start == 4 * step else 1)
                wait_until(lambda: all(map(workers.ready, stages)), 300, workers)
                time.sleep(rng.uniform(0.0, 0.6))
                for name in victims:
                    workers.kill(name)
                    workers.start(name, stages[name])
        want = _about_models(assembly, _undisturbed(assembly, kafka))
        assert {("data", "close"), ("concept", "open")} <= {(kind, event) for kind, event, _ in want}
        # Freshness goes by the clock and by what Redis has, which is none of these events: that is told besides.
        wait_until(lambda: len(_about_models(assembly, _alerts(kafka))) >= len(want), 300, workers)
        wait_until(lambda: all(map(workers.ready, stages)), 300, workers)
        assert [workers.stop(name, 120) for name in stages] == [0, 0]
    finally:
        workers.end()
        writer.close()
    found = _about_models(assembly, _alerts(kafka))
    for kind in ("data", "concept"):
        assert [each for each in found if each[0] == kind] == [each for each in want if each[0] == kind]


def _alerts(kafka: dict[str, str]) -> list[bytes | None]:
    return [message.value() for message in committed(kafka, ALERTS)]


def _about_models(assembly: Assembly, values: list[bytes | None]) -> list[tuple[str, str, bytes | None]]:
    return [each for each in _told(assembly, values) if each[0] != "operations"]


def _told(assembly: Assembly, values: list[bytes | None]) -> list[tuple[str, str, bytes | None]]:
    """Return the kind, event and bytes of each alert."""
    batch = RecordReader(assembly.contracts[ALERTS].schema, assembly.resolver()).decode(values, 1 << 20).batch
    return list(zip(batch.columns["kind"].tolist(), batch.columns["event"].tolist(), values, strict=True))


def _undisturbed(assembly: Assembly, kafka: dict[str, str]) -> list[bytes | None]:
    """Return the alerts of the same records, run through the same stages in memory."""
    count = partition_counts(kafka, [SCORED])[SCORED]
    broker = MemoryBroker(count)
    for name in (MEASURES, EXAMPLES, ALERTS, MODELS, MONITOR_CHANGELOG):
        broker.topics[name] = [Partition()]
    for topic in (MODELS, SCORED, EXAMPLES):
        for message in committed(kafka, topic):
            broker.append(Output(topic, [message.key()], [message.value()], _partition(message)))
    resolve = assembly.resolver()
    for work in (measure_stage(assembly, resolve), monitor_stage(assembly, resolve, count)):
        log = MemoryLog(broker, work.name)
        loop = StageLoop(work, log, LoopLimits(5000, 1 << 60), DeadLetterLimit(1.0, 10), None, Unobserved())
        loop.start()
        while batches := loop.poll(0.0):
            loop.handle(batches)
    return list(broker.records(ALERTS, 0, 0, 1 << 30).values)


def _partition(message: Message) -> int:
    return message.partition() or 0
