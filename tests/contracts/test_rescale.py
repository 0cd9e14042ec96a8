"""More partitions, offline: records, window state and offsets as if there had always been so many."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from confluent_kafka.admin import AdminClient

from cards import events, first_stage, published, view
from millstream.adapters.embedded.endpoints import Endpoints
from millstream.adapters.kafka.client import read_committed
from millstream.adapters.kafka.groups import committed_offsets
from millstream.adapters.kafka.producer import Deliveries, drain, open_producer, publish
from millstream.adapters.kafka.topic_registry import claim, read_registry
from millstream.adapters.kafka.topics import create_topics, partition_counts
from millstream.core.batch import Batch
from millstream.core.partitioner import partition_of
from millstream.errors import Misconfigured, Retry
from millstream.runtime.dead_letters import DeadLetterLimit
from millstream.runtime.log.kafka_log import KafkaLog
from millstream.runtime.log.memory_log import MemoryBroker, MemoryLog
from millstream.runtime.loop import LoopLimits, StageLoop
from millstream.runtime.observer import Unobserved
from millstream.runtime.rescale import rescale
from millstream.runtime.rescale.rescale import Rescale
from millstream.runtime.stage import Stage
from millstream.topology import Topic, Topology

pytestmark = pytest.mark.kafka
COUNT, MORE = 2, 5


def _project() -> tuple[Topology, Stage]:
    name = f"p{uuid.uuid4().hex[:8]}"
    stage = first_stage(view("activity", "customer"))
    stage.plan = replace(stage.plan, input=f"{name}-in", output=f"{name}-out", internal=f"{name}.")
    stage.inputs = stage.plan.inputs
    topics = (
        Topic(stage.plan.input, "k", "producers", ("customer",)),
        Topic(stage.plan.output, "k", "customer", ("others",)),
        Topic(stage.plan.changelog, "k", "customer", ("customer",), "compact"),
    )
    return Topology(name, (stage.plan,), topics), stage


def _publish(kafka: Mapping[str, str], topic: str, batch: Batch) -> None:
    output, producer, deliveries = published(batch), open_producer(kafka), Deliveries()
    publish(producer, topic, output.keys, output.values, deliveries=deliveries, tags=range(batch.length))
    drain(producer, deliveries)


def _loop(stage: Stage, log: KafkaLog | MemoryLog) -> StageLoop:
    loop = StageLoop(stage, log, LoopLimits(7, 500), DeadLetterLimit(1.0, 10), None, Unobserved(), now_ms=lambda: 0)
    loop.start()
    return loop


def _windows(stage: Stage) -> dict[int, tuple[list[float], int]]:
    found: dict[int, tuple[list[float], int]] = {}
    for store in stage.featurize.stores.values():
        keys, results, times = store.online(store.all_slots())
        features = np.hstack([results.reals, results.wholes.astype(object)])
        found |= {int(k): (f.tolist(), int(t)) for k, f, t in zip(keys, features, times, strict=True)}
    return found


def _run(kafka: Mapping[str, str], project: Topology, stage: Stage, count: int) -> dict[int, tuple[list[float], int]]:
    """Run the stage until it has read so many events, stop it as SIGTERM does, and return its windows."""
    log = KafkaLog(
        kafka,
        group=project.group("customer"),
        transactional_id=project.project,
        exactly_once=True,
        transaction_timeout_ms=10_000,
        origins=claim(kafka, project, 1),
    )
    loop, deadline = _loop(stage, log), time.monotonic() + 90
    while count > 0:
        assert time.monotonic() < deadline
        polled = loop.poll(0.2)
        loop.handle(polled)
        count -= sum(map(len, polled))
    found = _windows(stage)
    loop.close()
    return found


def _records(kafka: Mapping[str, str], topic: str) -> list[tuple[bytes, bytes, int]]:
    return [
        (each.key() or b"", each.value() or b"", partition)
        for partition in range(partition_counts(kafka, [topic])[topic])
        for part in read_committed(kafka, topic, partition, 0, None)
        for each in part
    ]


def test_records_state_and_offsets_move_and_windows_are_those_of_a_run_that_never_grew(
    kafka: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, (project, stage), whole = kafka.kafka, _project(), events(160)
    plan = stage.plan
    create_topics(broker, project.topics, COUNT, 1)
    _publish(broker, plan.input, whole.take(np.arange(100)))
    claim(broker, project, 1)
    with pytest.raises(Misconfigured, match=r"has not read .*-in\[\d\] from offset 0 on"):
        Rescale(broker, project, MORE, 1, print).run()
    _run(broker, project, stage, 100)
    with pytest.raises(Misconfigured, match="have 2 partitions already"):
        Rescale(broker, project, COUNT, 1, print).run()
    with pytest.raises(Misconfigured, match=r"cannot shrink to 1: rescale only adds partitions"):
        Rescale(broker, project, 1, 1, print).run()
    before = _records(broker, plan.input)

    # Crashes while records are copied, before the earlier ones are deleted, and before state moves.
    crashes = [
        (rescale, "partition_of", _after(30)),
        (Rescale, "_delete_before", _crash),
        (rescale, "move_rows", _crash),
    ]
    for where, name, crash in crashes:
        with monkeypatch.context() as patched:
            patched.setattr(where, name, crash)
            with pytest.raises(Retry, match="crash"):
                Rescale(broker, project, MORE, 1, print).run()
    with pytest.raises(Misconfigured, match=f"half way to {MORE} partitions"):
        claim(broker, project, 1)
    Rescale(broker, project, MORE, 1, print).run()

    assert set(partition_counts(broker, [each.name for each in project.topics]).values()) == {MORE}
    after = _records(broker, plan.input)
    assert sorted(each[:2] for each in after) == sorted(each[:2] for each in before)
    assert all(partition_of([key], MORE)[0] == partition for key, _, partition in after)
    assert [v for k, v, _ in before if k == b"7"] == [v for k, v, _ in after if k == b"7"]
    committed = committed_offsets(AdminClient(dict(broker)), project.group("customer"))
    assert len(committed) == MORE
    assert read_registry(broker)[project.project, plan.input].origin.layout == 1

    _publish(broker, plan.input, whole.take(np.arange(100, 160)))
    (_, again) = _project()
    again.plan, again.inputs = plan, plan.inputs
    found = _run(broker, project, again, 60)
    calm = MemoryBroker(partitions=MORE)
    calm.append(published(whole))
    undisturbed = first_stage(view("activity", "customer"))
    loop = _loop(undisturbed, MemoryLog(calm, "group"))
    while polled := loop.poll(0.0):
        loop.handle(polled)
    assert found == _windows(undisturbed)
    keys = [key for key, _, _ in _records(broker, plan.output)]
    assert len(keys) == 160


def _after(calls: int) -> Callable[[Sequence[bytes], int], Any]:
    left = iter(range(calls))

    def crashing(keys: Sequence[bytes], count: int) -> Any:
        if next(left, None) is None:
            raise Retry("crash")
        return partition_of(keys, count)

    return crashing


def _crash(*_given: object) -> int:
    raise Retry("crash")
