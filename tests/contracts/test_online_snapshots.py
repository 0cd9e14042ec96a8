"""Snapshots over a real broker: the newest that fits is served; what does not is refused by name, counted, passed."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from millstream.adapters.embedded.endpoints import Endpoints
from millstream.adapters.kafka.producer import Deliveries, drain, open_producer
from millstream.adapters.kafka.producer import publish as queue
from millstream.adapters.kafka.topics import create_topics
from millstream.adapters.models.river_pipelines import OnlineModel
from millstream.adapters.telemetry.metrics import Telemetry
from millstream.app.serving import _snapshots
from millstream.core.declaration import Service
from millstream.runtime.log.kafka_log import KafkaLog
from millstream.stages.learn.stage import LearnStage
from millstream.stages.score.policy import SHADOW
from millstream.stages.score.step import Score
from millstream.topology import SNAPSHOTS, Topic
from online_models import FEATURES, KEY, declared, learner_of, signed
from running import wait_until

pytestmark = pytest.mark.kafka

MODEL = declared()
SERVICE = Service("fraud", (("a", "float64"), ("b", "float64")), "0.0", 0.5, {})


class Call:
    """Pickles as a call."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, ("touch pwned",)


@pytest.fixture
def broker(kafka: Endpoints) -> Endpoints:
    create_topics(kafka.kafka, [Topic(SNAPSHOTS, "model", "learn", ("score",), "compact", 1)], 1, 1)
    return kafka


class Serving:
    """A scoring stage's side of it, without the stage."""

    def __init__(self, kafka: Endpoints, model: OnlineModel, stack: contextlib.ExitStack) -> None:
        self.score, self.telemetry, self.model = Score(SERVICE, []), Telemetry(), model
        assembly = SimpleNamespace(policy=SHADOW, online_model=lambda: model, snapshot_key=lambda: KEY)
        self._before_batch = _snapshots(assembly, kafka, self.score, self.telemetry, stack)  # type: ignore[arg-type]

    def serves(self, version: int) -> bool:
        """Whether this version is served, and says so."""
        self._before_batch()
        told = self.telemetry.value("millstream_online_version", model=self.model.name)
        return self.score.online is not None and self.score.online.version == version == told

    def refused(self) -> float:
        return self.telemetry.value("millstream_online_refused_total", model=self.model.name)


@pytest.fixture
def serve(broker: Endpoints) -> Iterator[Callable[[OnlineModel], Serving]]:
    with contextlib.ExitStack() as stack:
        yield lambda model: Serving(broker, model, stack)


def publish(broker: Endpoints, model: OnlineModel, *snapshots: bytes | None) -> None:
    producer, deliveries = open_producer(broker.kafka), Deliveries()
    keys = [model.name.encode()] * len(snapshots)
    queue(producer, SNAPSHOTS, keys, list(snapshots), deliveries=deliveries, tags=list(range(len(snapshots))))
    drain(producer, deliveries)
    assert not deliveries.failed


def test_what_does_not_fit_is_refused_by_name_and_the_one_before_goes_on(
    broker: Endpoints, serve: Callable[[OnlineModel], Serving], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    serving = serve(MODEL)
    assert serving.score.online is None
    learner = learner_of(MODEL)
    good = learner.snapshot(KEY)
    publish(broker, declared("another"), learner_of(declared("another"), 99).snapshot(KEY))
    publish(broker, MODEL, good)
    wait_until(lambda: serving.serves(30), 20)
    bad = [
        (good[:-1] + bytes([good[-1] ^ 1]), "tampered with"),
        (pickle.dumps({"": 1}), "unsigned"),
        (signed(good, pickle.dumps({"": Call()})), "posix.system is no part of the declared pipeline"),
        (learner_of(declared(features=(*FEATURES, "c"))).snapshot(KEY), "another feature set"),
    ]
    for times, (snapshot, reason) in enumerate(bad, 1):
        publish(broker, MODEL, snapshot)
        wait_until(lambda times=times: serving.refused() == times, 20)
        assert serving.serves(30)
        told = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
        assert len(told) == times
        assert reason in told[-1]
        assert told[-1].startswith("snapshots[0]@")
        assert told[-1].endswith("snapshot 30 goes on")
    assert not Path("pwned").exists()
    publish(broker, MODEL, bad[-1][0])  # the same again: counted, but not worth a line
    wait_until(lambda: serving.refused() == 5, 20)
    publish(broker, MODEL, None, learner_of(MODEL, 40).snapshot(KEY))
    wait_until(lambda: serving.serves(40), 20)
    publish(broker, MODEL, learner_of(MODEL, 41).snapshot(KEY))
    wait_until(lambda: serving.serves(41), 20)
    errors = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert len(errors) == 4
    told = [each.getMessage() for each in caplog.records if "from now on" in each.getMessage()]
    # The first, and the one after refusals.
    assert told == [f"online model fraud, snapshot {each} is in the champion's shadow from now on" for each in (30, 40)]


def test_who_starts_after_a_forgery_serves_and_learns_on_from_the_snapshot_before_it(
    broker: Endpoints, serve: Callable[[OnlineModel], Serving]
) -> None:
    model = declared("restarted")
    good = learner_of(model, 50).snapshot(KEY)
    publish(broker, model, learner_of(model, 10).snapshot(KEY), good, good[:-1], b"forged")
    serving = serve(model)
    assert serving.serves(50)  # at once: a start waits for what is there
    assert serving.refused() == 2
    log = KafkaLog(broker.kafka, group="g", transactional_id="t", exactly_once=True, transaction_timeout_ms=10_000)
    try:
        stage = LearnStage(model, lambda records: pytest.fail("there are no examples"), KEY)
        assert stage._restored(log).examples == 50
    finally:
        log.close()
