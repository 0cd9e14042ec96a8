"""Labels come twice, early, late, corrected, retracted, and the join is killed: each event's examples end right."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cards import events
from running import Workers, committed, wait_until
from statements import PRECEDENCE, Said, label_records, statements

from services.adapters import endpoints as servers
from services.adapters.producer import Deliveries, drain, open_producer, publish
from services.cli.assembly import Assembly
from services.cli.setup import initialise
from services.core.avro.decode import RecordReader
from services.core.avro.encode import RecordWriter
from services.core.batch import Batch
from services.core.text import as_text
from services.settings import Settings, load_settings
from services.topology import DEAD_LETTERS, EXAMPLES, LABELS, SCORED

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

SEED = 8
EVENTS = 2_000


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A stack of its own: this test owns the real topics."""
    made = load_settings({}, state_dir=tmp_path_factory.mktemp("join"))
    servers.start(made, print)
    yield made
    servers.stop(made)


def test_examples_end_right_although_the_join_is_killed(settings: Settings) -> None:
    rng = random.Random(SEED)
    kafka = servers.resolve(settings).kafka
    assembly = initialise(settings, print)
    batch = events(EVENTS, seed=SEED, step_ms=60_000)
    said, final = statements(batch, rng)
    believed = {event: label for event, (label, _) in final.items()}
    stray: Said = (10_000_000, 1.0, int(batch.columns["event_time_ms"].max()), "bank", "new")
    wrong: Said = (int(batch.columns["transaction_id"][0]), 0.5, stray[2], "bank", "new")
    keys, values = label_records(assembly.contracts, [*said, stray, wrong])
    producer, deliveries = open_producer(kafka), Deliveries()

    def send(topic: str, some_keys: list[bytes], some_values: list[bytes]) -> None:
        first = deliveries.next_tag
        publish(
            producer,
            topic,
            some_keys,
            some_values,
            deliveries=deliveries,
            tags=range(first, first + len(some_keys)),
        )

    # Half of what is said comes before the predictions.
    half = len(keys) // 2
    send(LABELS, keys[:half], values[:half])
    event_values = RecordWriter(assembly.contract.schema).encode(batch)
    send("transactions", as_text(batch.columns["customer_id"]), event_values)
    drain(producer, deliveries)
    environment = {"MILLSTREAM_CHECKPOINT_INTERVAL_MS": "500", "MILLSTREAM_LABEL_PRECEDENCE": PRECEDENCE}
    workers = Workers(Path(settings.state_dir), environment)
    try:
        workers.start("path", ["customer", "terminal"])
        workers.start("join", ["join"])
        wait_until(lambda: len(committed(kafka, SCORED)) == EVENTS, 120, workers)
        for start in range(half, len(keys), 300):
            send(LABELS, keys[start : start + 300], values[start : start + 300])
            drain(producer, deliveries)
            time.sleep(rng.uniform(0.0, 0.6))
            workers.kill("join")
            workers.start("join", ["join"])
        wait_until(lambda: _latest(assembly, kafka) == believed, 60, workers)
        wait_until(lambda: workers.ready("join"), 60, workers)
        assert workers.stop("join") == 0
        examples = _examples(assembly, kafka)
        pairs = list(zip(examples.columns["event_id"], examples.columns["revision"].tolist(), strict=True))
        assert len(set(pairs)) == len(pairs), "no example is published twice"
        _check_chain(examples)
        (letter,) = (
            RecordReader(assembly.contracts[DEAD_LETTERS].schema, assembly.resolver())
            .decode([each.value() for each in committed(kafka, DEAD_LETTERS)], 1 << 30)
            .batch.columns["reason"]
        )
        assert letter == "not-allowed"
    finally:
        workers.end()


def _examples(assembly: Assembly, kafka: dict[str, str]) -> Batch:
    reader = RecordReader(assembly.examples_schema, assembly.resolver())
    return reader.decode([each.value() for each in committed(kafka, EXAMPLES)], 1 << 30).batch


def _latest(assembly: Assembly, kafka: dict[str, str]) -> dict[int, float]:
    """Return the label that the newest example of each event says, where there is one."""
    batch = _examples(assembly, kafka)
    newest: dict[int, tuple[int, float | None]] = {}
    for event, revision, label, null in zip(
        batch.columns["event_id"],
        batch.columns["revision"].tolist(),
        batch.columns["label"].tolist(),
        batch.is_null("label").tolist(),
        strict=True,
    ):
        if revision > newest.get(int(event), (-1, None))[0]:
            newest[int(event)] = (revision, None if null else label)
    return {event: label for event, (_, label) in newest.items() if label is not None}


def _check_chain(batch: Batch) -> None:
    """What an example says it replaces is what the one before it said."""
    said: dict[str, float | None] = {}
    columns = zip(
        batch.columns["event_id"],
        batch.columns["label"].tolist(),
        batch.is_null("label").tolist(),
        batch.columns["previous_label"].tolist(),
        batch.is_null("previous_label").tolist(),
        strict=True,
    )
    for event, label, null, previous, no_previous in columns:
        assert said.get(event) == (None if no_previous else previous), event
        said[event] = None if null else label
    assert len(said) > EVENTS // 2
