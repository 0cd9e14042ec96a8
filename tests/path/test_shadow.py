"""The loop closed: labels teach the online model, its snapshots answer, and a forged one changes nothing."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from cards import DAY_MS, events
from millstream.adapters.embedded import endpoints as servers
from millstream.adapters.kafka.producer import Deliveries, drain, open_producer, publish
from millstream.adapters.models.river_model import OnlineScorer
from millstream.adapters.models.river_snapshot import signing_key
from millstream.app.assembly import Assembly
from millstream.app.setup import initialise
from millstream.cli import models
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.core.text import as_text
from millstream.errors import Misconfigured
from millstream.settings import Settings, load_settings
from millstream.topology import LABELS, SCORED, SNAPSHOTS
from running import Workers, committed, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

WAVE = 400
SEGMENT, MOST = "terminal_id", 5
ENVIRONMENT = {
    "MILLSTREAM_CHECKPOINT_INTERVAL_MS": "300",
    "MILLSTREAM_ANSWER": "online",
    "MILLSTREAM_LEARN_SEGMENT": SEGMENT,
    "MILLSTREAM_LEARN_MAX_SEGMENTS": str(MOST),
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A stack of its own: this test owns the real topics."""
    made = load_settings(
        {}, state_dir=tmp_path_factory.mktemp("shadow"), learn_segment=SEGMENT, learn_max_segments=MOST
    )
    servers.start(made, print)
    yield made
    servers.stop(made)


def test_what_was_learnt_is_what_scores(settings: Settings) -> None:
    kafka = servers.resolve(settings).kafka
    assembly = initialise(settings, print)
    batch = events(4 * WAVE, seed=3)
    producer, deliveries = open_producer(kafka), Deliveries()
    workers = Workers(Path(settings.state_dir), ENVIRONMENT)

    def send(topic: str, keys: list[bytes], values: list[bytes]) -> None:
        first = deliveries.next_tag
        publish(producer, topic, keys, values, deliveries=deliveries, tags=range(first, first + len(keys)))
        drain(producer, deliveries)

    def stream(wave: int) -> None:
        """Publish a wave of events; once they are scored, their labels."""
        part = batch.take(np.arange(wave * WAVE, (wave + 1) * WAVE))
        send("transactions", as_text(part.columns["customer_id"]), RecordWriter(assembly.contract.schema).encode(part))
        wait_until(lambda: len(committed(kafka, SCORED)) == (wave + 1) * WAVE, 240, workers)
        send(LABELS, *_labels(assembly, part))

    try:
        workers.start("path", ["customer", "terminal"])
        workers.start("loop", ["join", "learn"])
        for wave in range(3):
            stream(wave)
            # Versions count examples: all that is labelled has been learnt, published and heard of.
            learnt = (wave + 1) * WAVE
            wait_until(lambda learnt=learnt: _metric(settings, "millstream_online_version") == learnt, 240, workers)
        assert workers.stop("loop") == 0
        last = committed(kafka, SNAPSHOTS)[-1].value() or b""
        send(SNAPSHOTS, [assembly.declaration.service.name.encode()], [last[:-1] + bytes([last[-1] ^ 1])])
        wait_until(lambda: _metric(settings, "millstream_online_refused_total") == 1, 120, workers)
        stream(3)
        assert _metric(settings, "millstream_online_version") == 3 * WAVE
        assert "tampered with" in workers.log("path").read_text()
        assert workers.stop("path") == 0
    finally:
        workers.end()

    values = [message.value() for message in committed(kafka, SCORED)]
    scored = RecordReader(assembly.topology.stages[-1].output_schema, assembly.resolver()).decode(values, 1 << 30).batch
    versions = np.where(scored.is_null("online_version"), 0, scored.columns["online_version"])
    waves = scored.columns["transaction_id"] // WAVE
    assert versions.tolist() == (waves * WAVE).tolist()
    assert scored.columns["arm"].tolist() == np.where(waves > 0, "online", "baseline").tolist()
    assert scored.is_null("online_score").tolist() == (waves == 0).tolist()

    declared, key = assembly.online_model(), signing_key(None, settings.state_dir)
    snapshots = {}
    for message in committed(kafka, SNAPSHOTS)[:-1]:
        scorer = OnlineScorer.load(message.value() or b"", declared, key)
        snapshots[scorer.version] = scorer
    for version in (WAVE, 2 * WAVE, 3 * WAVE):
        rows = scored.take(versions == version)
        expected = snapshots[version].score(rows).tolist()
        assert rows.columns["online_score"].tolist() == rows.columns["score"].tolist() == expected
        assert len(set(expected)) > WAVE // 2, "it tells events apart"
    app = typer.Typer()
    models.register(app)
    told = CliRunner().invoke(
        app, ["models", "online", "--json"], env={"MILLSTREAM_STATE_DIR": str(settings.state_dir), **ENVIRONMENT}
    )
    assert told.exit_code == 0, told.output
    shown = json.loads(told.stdout)
    assert (shown["version"], shown["models"], shown["role"]) == (3 * WAVE, MOST + 1, "answering")
    assert set(shown["metrics"]["online"]) == {"log_loss", "brier", "auc"}
    (forged,) = shown["refused"]
    assert "tampered with" in forged
    elsewhere = replace(assembly, settings=settings.model_copy(update={"learn_segment": "country"}))
    with pytest.raises(Misconfigured, match="MILLSTREAM_LEARN_SEGMENT: there is no column 'country'"):
        elsewhere.online_model()


def _labels(assembly: Assembly, events: Batch) -> tuple[list[bytes], list[bytes]]:
    """Return label records that call large amounts positive, a week later."""
    texts = np.array([str(each) for each in events.columns["transaction_id"].tolist()], dtype=object)
    said = {
        "event_id": texts,
        "label": (events.columns["amount"] > 200) * 1.0,
        "known_at_ms": events.columns["event_time_ms"] + 7 * DAY_MS,
        "source": np.full(events.length, "bank", dtype=object),
        "kind": np.full(events.length, "new", dtype=object),
    }
    writer = RecordWriter(assembly.contracts[LABELS].schema)
    return as_text(texts), writer.encode(Batch(events.length, said))


def _metric(settings: Settings, name: str) -> float:
    """Return a sample of the worker that scores; NaN while there is none."""
    told = json.loads((settings.state_dir / "workers" / "path.json").read_text())
    with urllib.request.urlopen(f"http://{told['host']}:{told['port']}/metrics", timeout=5) as answer:
        samples = [line for line in answer.read().decode().splitlines() if line.startswith(name)]
    return float(samples[0].rpartition(" ")[2]) if samples else float("nan")
