"""kill -9 at random points while events and labels flow: one example each, and models and figures as undisturbed."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer

from cards import events
from label_loop import as_of_ms, check_chain, examples, figures, labelled, scored
from millstream.adapters.embedded import endpoints as servers
from millstream.adapters.kafka.promotions import publish as promote
from millstream.adapters.models.river_model import OnlineScorer
from millstream.adapters.models.river_snapshot import read_header, signing_key
from millstream.app.assembly import Assembly
from millstream.app.setup import initialise
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.core.text import as_text
from millstream.settings import Settings, load_settings
from millstream.stages.learn.learner import Learner
from millstream.topology import DEAD_LETTERS, EXAMPLES, LABELS, SCORED, SNAPSHOTS
from millstream_lab.chaos.candidate_models import candidate
from quality_oracle import recomputed
from running import Workers, committed, wait_until
from statements import PRECEDENCE, Said, label_records, statements

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

SEED = 20_181_101
EVENTS = 3_000
STEP_MS = 120_000
"""So that all is within the lateness, however far a slow worker is behind."""

RATE = 200
KILLS = 4
Message = tuple[str, bytes, bytes]
"""Topic, key, value."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A stack of its own: this test owns the real topics."""
    made = load_settings({}, state_dir=tmp_path_factory.mktemp("crash"), label_precedence=PRECEDENCE)
    servers.start(made, print)
    yield made
    servers.stop(made)


def _messages(assembly: Assembly, batch: Batch, said: Sequence[Said], rng: random.Random) -> list[Message]:
    """Return events, and what is said of each put in soon after it, late, or before it."""
    newest_ms = max(each[2] for each in said)
    # Of an event that never happens, and one that says neither yes nor no.
    stray: list[Said] = [(10_000_000, 1.0, newest_ms, "bank", "new"), (0, 0.5, newest_ms, "bank", "new")]
    keys = as_text(batch.columns["customer_id"])
    values = RecordWriter(assembly.contract.schema).encode(batch)
    placed: list[tuple[float, Message]] = [
        (float(place), ("transactions", key, value))
        for place, (key, value) in enumerate(zip(keys, values, strict=True))
    ]
    about = [*said, *stray]
    for (event, *_), key, value in zip(about, *label_records(assembly.contracts, about), strict=True):
        place = min(event, EVENTS) + rng.uniform(-0.05, 0.3) * EVENTS
        placed.append((place, (LABELS, key, value)))
    return [message for _, message in sorted(placed)]


def _publish(kafka: Mapping[str, str], messages: Sequence[Message]) -> None:
    producer = Producer({**kafka, "enable.idempotence": True, "partitioner": "murmur2_random", "linger.ms": 1})
    started_s = time.monotonic()
    for number, (topic, key, value) in enumerate(messages):
        producer.produce(topic, value, key)
        ahead_s = number / RATE - (time.monotonic() - started_s)
        if ahead_s > 0.01:
            producer.poll(0)
            time.sleep(ahead_s)
    assert producer.flush(30) == 0


def test_kills_lose_no_example_double_none_and_leave_models_and_figures_as_undisturbed(settings: Settings) -> None:
    rng = random.Random(SEED)
    kafka = servers.resolve(settings).kafka
    assembly = initialise(settings, print)
    promote(kafka, candidate(assembly.declaration.service, 1, SEED))
    batch = events(EVENTS, seed=SEED, step_ms=STEP_MS)
    said, believed = statements(batch, rng)
    messages = _messages(assembly, batch, said, rng)
    environment = {"MILLSTREAM_CHECKPOINT_INTERVAL_MS": "700", "MILLSTREAM_LABEL_PRECEDENCE": PRECEDENCE}
    workers = Workers(Path(settings.state_dir), environment)
    try:
        for name in ("one", "two"):
            workers.start(name)
        wait_until(lambda: workers.ready("one") and workers.ready("two"), 240, workers)
        parts = [messages[: 6 * len(messages) // 10], messages[6 * len(messages) // 10 : 8 * len(messages) // 10]]
        parts.append(messages[sum(map(len, parts)) :])
        publisher = threading.Thread(target=_publish, args=(kafka, parts[0]))
        publisher.start()
        for kill in range(KILLS):
            time.sleep(rng.uniform(1.0, 4.0))
            # In turn, so that what runs in one place only, such as the learner, dies where it is.
            victim = ("one", "two")[kill % 2]
            workers.kill(victim)
            time.sleep(rng.uniform(0.0, 0.5))
            workers.start(victim)
        publisher.join()
        sent = 0
        for part, following in itertools.zip_longest(parts, parts[1:]):
            sent += sum(topic == "transactions" for topic, _key, _value in part)
            wait_until(lambda sent=sent: len(committed(kafka, SCORED)) >= sent, 240, workers)
            if following is not None:
                # So that, on a slow machine too, what follows is scored with a later snapshot than what came before.
                newest = int(committed(kafka, EXAMPLES)[-1].offset() or 0)
                wait_until(lambda newest=newest: _learnt(settings, kafka) > newest, 120, workers)
                _publish(kafka, following)
        wait_until(lambda: labelled(assembly, kafka) == believed, 120, workers)
        wanted = recomputed(assembly, scored(assembly, kafka), said, believed, as_of_ms(assembly, kafka, said))
        wait_until(lambda: figures(assembly, kafka) == wanted, 120, workers)
        wait_until(lambda: _learnt(settings, kafka) > int(committed(kafka, EXAMPLES)[-1].offset() or 0), 120, workers)
        wait_until(lambda: workers.ready("one") and workers.ready("two"), 120, workers)
        assert workers.stop("one") == 0
        assert workers.stop("two") == 0
    finally:
        workers.end()
    answered = Counter(scored(assembly, kafka).columns["transaction_id"].tolist())
    assert answered == Counter(range(EVENTS)), "each event is answered once"
    check_chain(examples(assembly, kafka))
    assert labelled(assembly, kafka) == believed
    assert figures(assembly, kafka) == wanted
    letters = RecordReader(assembly.contracts[DEAD_LETTERS].schema, assembly.resolver())
    turned_away = letters.decode([each.value() for each in committed(kafka, DEAD_LETTERS)], 1 << 30).batch
    assert turned_away.columns["reason"].tolist() == ["not-allowed"]
    assert turned_away.columns["topic"].tolist() == [LABELS]
    _check_learnt(settings, assembly, kafka)


def _learnt(settings: Settings, kafka: Mapping[str, str]) -> int:
    """Return the offset of the first example that the newest snapshot has not learnt."""
    snapshots = committed(kafka, SNAPSHOTS)
    if not snapshots:
        return -1
    header = read_header(snapshots[-1].value() or b"", signing_key(None, settings.state_dir))
    return header.offsets[f"{EXAMPLES}[0]"]


def _check_learnt(settings: Settings, assembly: Assembly, kafka: Mapping[str, str]) -> None:
    """Hold each snapshot, and what was scored with it, against a learner that was never killed."""
    key, declared = signing_key(None, settings.state_dir), assembly.online_model()
    undisturbed, killed = Learner(declared), Learner(declared)
    source, batch = f"{EXAMPLES}[0]", examples(assembly, kafka)
    offsets = np.array([each.offset() for each in committed(kafka, EXAMPLES)])
    scorers, done = {}, 0
    for message in committed(kafka, SNAPSHOTS):
        killed.restore(message.value() or b"", key)
        until = int(np.searchsorted(offsets, killed.offsets[source]))
        undisturbed.learn(batch.take(np.arange(done, until)), "label", source, offsets[done:until])
        done = until
        assert killed.examples == undisturbed.examples, "each example is learnt once"
        assert killed.figures() == undisturbed.figures()
        assert _weights(killed) == _weights(undisturbed)
        scorers[killed.examples] = OnlineScorer.load(message.value() or b"", declared, key)
    assert done == batch.length
    # An example that only adds to the history of its event, as of a label after its correction, teaches nothing.
    repeated = ~batch.is_null("previous_label") & (batch.columns["previous_label"] == batch.columns["label"])
    repeated &= batch.columns["previous_known_at_ms"] == batch.columns["label_known_at_ms"]
    assert killed.examples == int((~batch.is_null("label") & ~repeated).sum())
    assert set(killed.figures()) == {"online", "champion"}
    assert killed.scorer().score(batch).tobytes() == undisturbed.scorer().score(batch).tobytes()
    answered = scored(assembly, kafka)
    versions = np.where(answered.is_null("online_version"), 0, answered.columns["online_version"])
    assert len(set(versions.tolist()) - {0}) > 1
    for version in sorted(set(versions.tolist()) - {0}):
        rows = answered.take(versions == version)
        assert rows.columns["online_score"].tobytes() == scorers[version].score(rows).tobytes(), version


def _weights(learner: Learner) -> list[Any]:
    """Return all that the scaler and the model have learnt."""
    scaler, model = learner._models.by_segment[""].steps.values()
    return [scaler.counts, scaler.means, scaler.vars, model.weights, model.intercept, model.optimizer.n_iterations]
