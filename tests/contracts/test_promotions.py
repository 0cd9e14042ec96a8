"""Promotions over a real broker: the newest of a name, whole, to everyone, whatever else is in the topic."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import pytest

from fakes_models import a_declaration, a_version
from millstream.adapters.embedded.endpoints import Endpoints
from millstream.adapters.kafka import promotions
from millstream.adapters.kafka.producer import Deliveries, drain, open_producer
from millstream.adapters.kafka.producer import publish as queue
from millstream.adapters.kafka.promotions import follow, latest, publish
from millstream.adapters.kafka.topics import create_topics
from millstream.app.champion import champion_fit
from millstream.app.serving import _promotions
from millstream.errors import Refused
from millstream.settings import load_settings
from millstream.topology import MODELS, SCHEMAS, Topic

pytestmark = pytest.mark.kafka
_numbers = count(1)


@pytest.fixture
def broker(kafka: Endpoints):
    topics = [Topic(name, "key", "train", ("score",), "compact", 1) for name in (MODELS, SCHEMAS)]
    create_topics(kafka.kafka, topics, partitions=1, replication=1)
    return kafka.kafka


@pytest.fixture
def model():
    return replace(a_version(), name=f"promoted-{next(_numbers)}")


def taken(follower, seconds=20.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = follower.take()
        if found is not None:
            return found
        time.sleep(0.02)
    raise AssertionError("no promotion was heard")


def raw(broker, key, value):
    producer, deliveries = open_producer(broker), Deliveries()
    queue(producer, MODELS, [key], [value], deliveries=deliveries, tags=[0])
    drain(producer, deliveries)


def test_the_newest_promotion_of_the_name_is_the_champion(broker, model):
    assert latest(broker, model.name) is None
    publish(broker, model)
    publish(broker, replace(model, version=2))
    publish(broker, replace(model, name=model.name + "-other", version=7))
    assert latest(broker, model.name) == replace(model, version=2)
    publish(broker, model)  # a rollback
    assert latest(broker, model.name) == model


def test_a_follower_hears_of_each_once_and_skips_to_the_newest(broker, model):
    publish(broker, model)
    follower = follow(broker, model.name)
    try:
        assert taken(follower) == model
        assert follower.take() is None
        publish(broker, replace(model, version=2))
        assert taken(follower).version == 2
        publish(broker, model)
        assert taken(follower).version == 1
        assert follower.take() is None
    finally:
        follower.close()


def test_poison_and_tombstones_are_passed_over(broker, model, caplog):
    publish(broker, model)
    raw(broker, model.name.encode(), b"\xc3\x01 no such schema")
    raw(broker, model.name.encode(), None)
    with caplog.at_level(logging.ERROR):
        assert latest(broker, model.name) == model
    assert "passed over" in caplog.text


def test_a_model_of_several_megabytes_travels_and_one_too_large_is_refused(broker, model):
    large = replace(model, body=model.body + "x" * 6_000_000)
    publish(broker, large)
    assert latest(broker, model.name) == large
    with pytest.raises(Refused, match="fewer trees"):
        publish(broker, replace(model, body="x" * 17_000_000))
    assert latest(broker, model.name) == large


def test_a_champion_that_does_not_fit_is_announced_and_refused_once(kafka, broker, model, monkeypatch, caplog):
    declared = a_declaration()
    declared = replace(declared, service=replace(declared.service, name=model.name))
    assert champion_fit(broker, declared).refused is None
    assert "the declared rule answers" in champion_fit(broker, declared).found
    publish(broker, model)  # trained for the service "meters"
    fit = champion_fit(broker, declared)
    assert fit.refused is not None
    assert "meters" in fit.refused
    assert "millstream train" in fit.refused

    second = replace(model, version=2)
    heard = iter([model, None, second, second])
    follower = SimpleNamespace(take=lambda: next(heard), wait=lambda: None, close=lambda: None)
    monkeypatch.setattr(promotions, "follow", lambda *_: follower)
    assembly = SimpleNamespace(declaration=declared, settings=load_settings({}))
    with contextlib.ExitStack() as stack:
        before_batch = _promotions(assembly, kafka, SimpleNamespace(champion=None, swap=pytest.fail), stack)
        for _ in range(3):
            before_batch()
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [text.partition(" is refused")[0] for text in told] == [
        f"model {model.name!r} version {version}" for version in (1, 2)
    ]
    assert all(text.endswith("the declared rule goes on") for text in told)
