"""Labels in disorder, corrected and retracted, and workers killed: quality ends as recomputed from what was said."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cards import events
from quality_oracle import Figures, by_key, recomputed
from running import Workers, committed, wait_until
from sklearn.metrics import average_precision_score, precision_score, recall_score
from statements import PRECEDENCE, Said, label_records, statements

from services.adapters import endpoints as servers
from services.adapters.producer import Deliveries, drain, open_producer, publish
from services.cli.assembly import Assembly
from services.cli.quality_figures import read_figures
from services.cli.setup import initialise
from services.core.avro.decode import RecordReader
from services.core.avro.encode import RecordWriter
from services.core.batch import Batch
from services.core.metrics import DAY_MS
from services.core.partitioner import partition_of
from services.core.text import as_text
from services.settings import Settings, load_settings
from services.topology import EXAMPLES, LABELS, QUALITY, QUALITY_CHANGELOG, SCORED

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

SEED = 11
EVENTS = 1_500
AT_ONCE = 375
GROUP = "transaction_context__is_night"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A stack of its own: this test owns the real topics."""
    made = load_settings(
        {}, state_dir=tmp_path_factory.mktemp("quality"), quality_group=GROUP, label_precedence=PRECEDENCE
    )
    servers.start(made, print)
    yield made
    servers.stop(made)


def test_quality_ends_as_recomputed_although_workers_are_killed(settings: Settings) -> None:
    rng = random.Random(SEED)
    kafka = servers.resolve(settings).kafka
    assembly = initialise(settings, print)
    batch = events(EVENTS, seed=SEED)
    said, believed = statements(batch, rng)
    keys, values = label_records(assembly.contracts, said)
    producer, deliveries = open_producer(kafka), Deliveries()

    def send(topic: str, some_keys: list[bytes], some_values: list[bytes]) -> None:
        first = deliveries.next_tag
        tags = range(first, first + len(some_keys))
        publish(producer, topic, some_keys, some_values, deliveries=deliveries, tags=tags)
        drain(producer, deliveries)

    def send_events(start: int) -> int:
        """Publish the next two and a half days; return how many are published then."""
        send("transactions", event_keys[start : start + AT_ONCE], event_values[start : start + AT_ONCE])
        return min(start + AT_ONCE, EVENTS)

    event_keys = as_text(batch.columns["customer_id"])
    event_values = RecordWriter(assembly.contract.schema).encode(batch)
    send(LABELS, keys[:400], values[:400])
    # Not all at a time: a partition that is scored a week ahead of another makes the other's events late.
    sent = send_events(0)
    environment = {
        "MILLSTREAM_CHECKPOINT_INTERVAL_MS": "400",
        "MILLSTREAM_LABEL_PRECEDENCE": PRECEDENCE,
        "MILLSTREAM_QUALITY_GROUP": GROUP,
    }
    workers = Workers(Path(settings.state_dir), environment)
    stages = ["customer", "terminal", "join", "quality"]
    try:
        workers.start("all", stages)
        wait_until(lambda: committed(kafka, QUALITY), 90, workers)
        for start in range(400, len(keys), 500):
            wait_until(lambda wanted=sent: len(committed(kafka, SCORED)) == wanted, 90, workers)
            sent = send_events(sent)
            send(LABELS, keys[start : start + 500], values[start : start + 500])
            time.sleep(rng.uniform(0.0, 0.6))
            workers.kill("all")
            workers.start("all", stages)
            wait_until(lambda: workers.ready("all"), 60, workers)
        assert sent == EVENTS
        wait_until(lambda: len(committed(kafka, SCORED)) == EVENTS, 90, workers)
        wait_until(lambda: _labelled(assembly, kafka) == believed, 60, workers)
        wanted = recomputed(assembly, _scored(assembly, kafka), believed, _as_of_ms(assembly, kafka, said))
        wait_until(lambda: _published(assembly, kafka) == wanted, 60, workers)
        assert workers.stop("all") == 0
    finally:
        workers.end()
    assert _published(assembly, kafka) == wanted
    _check_with_sklearn(assembly, kafka, believed, wanted)
    _check_commands(settings)


def _scored(assembly: Assembly, kafka: Mapping[str, str]) -> Batch:
    reader = RecordReader(assembly.topology.stages[-1].output_schema, assembly.resolver())
    return reader.decode([each.value() for each in committed(kafka, SCORED)], 1 << 30).batch


def _labelled(assembly: Assembly, kafka: Mapping[str, str]) -> dict[int, tuple[float, int]]:
    """Return what the newest example of each event says, where it says anything."""
    reader = RecordReader(assembly.examples_schema, assembly.resolver())
    batch = reader.decode([each.value() for each in committed(kafka, EXAMPLES)], 1 << 30).batch
    newest: dict[int, tuple[int, bool, float, int]] = {}
    columns = (batch.columns[name].tolist() for name in ("event_id", "revision", "label", "label_known_at_ms"))
    for event, revision, label, at_ms, null in zip(*columns, batch.is_null("label").tolist(), strict=True):
        newest[int(event)] = max(newest.get(int(event), (-1, True, 0.0, 0)), (revision, null, label, at_ms))
    return {event: (label, at_ms) for event, (_, null, label, at_ms) in newest.items() if not null}


def _as_of_ms(assembly: Assembly, kafka: Mapping[str, str], said: list[Said]) -> int:
    """Return how far the slowest partition of labels has come, and no further than the examples."""
    reader = RecordReader(assembly.examples_schema, assembly.resolver())
    published = reader.decode([each.value() for each in committed(kafka, EXAMPLES)], 1 << 30).batch
    partitions = partition_of([str(each[0]).encode() for each in said], 4)
    known_ms = np.array([each[2] for each in said])
    slowest_ms = min(int(known_ms[partitions == partition].max()) for partition in range(4))
    return min(slowest_ms, int(published.columns["label_known_at_ms"].max()))


def _published(assembly: Assembly, kafka: Mapping[str, str]) -> Figures:
    newest = {each.key(): each.value() for each in committed(kafka, QUALITY)}
    reader = RecordReader(assembly.contracts[QUALITY].schema, assembly.resolver())
    return by_key(reader.decode(list(newest.values()), 1 << 30).batch)


def _check_with_sklearn(
    assembly: Assembly, kafka: Mapping[str, str], believed: dict[int, tuple[float, int]], figures: Figures
) -> None:
    """The answers of a day with all its labels, by another library."""
    scored = _scored(assembly, kafka)
    days = scored.columns["event_time_ms"] // DAY_MS
    checked = 0
    for day in np.unique(days).tolist():
        rows = [i for i in np.flatnonzero(days == day).tolist() if scored.columns["transaction_id"][i] in believed]
        truth = np.array([believed[int(scored.columns["transaction_id"][i])][0] for i in rows])
        called = scored.columns["decision"][rows] == "block"
        key = f"delayed|baseline|0|answer|{day}|180|"
        checked += len(rows)
        if not truth.any():  # the first day has two events, none of them a fraud
            assert figures[f"{key}|recall"][0] is None
            continue
        at = {metric: figures[f"{key}|{metric}"] for metric in ("precision", "recall", "average_precision")}
        assert at["recall"][0] == pytest.approx(recall_score(truth, called), abs=1e-12)
        assert at["precision"][0] == pytest.approx(precision_score(truth, called), abs=1e-12)
        scores = scored.columns["score"][rows]
        assert at["average_precision"][0] == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
        assert at["recall"][4:] == (len(rows) / int((days == day).sum()), len(rows), int(truth.sum()))
        assert at["recall"][3] is False, "nothing is final before half a year is over"
    assert checked == len(believed)
    assert any(key.endswith(f"|{GROUP}=*|recall_gap") for key in figures)
    assert {key.split("|")[4] for key, values in figures.items() if values[3]} > {""}, "days of a week old are final"
    # Nothing of the state is left behind: as many rows as there are cohorts, days and counts.
    newest = {each.key(): each.value() for each in committed(kafka, QUALITY_CHANGELOG)}
    assert 0 < sum(value is not None for value in newest.values()) < 600


def _check_commands(settings: Settings) -> None:
    figures = read_figures(settings)
    assert len(figures) == len({json.dumps(each.as_json()) for each in figures})
    picture = settings.state_dir / "quality.png"
    shown = _run(settings, "quality", "--png", str(picture), "--days", "3")
    assert "final" in shown
    assert picture.read_bytes()[:4] == b"\x89PNG"
    lines = [json.loads(line) for line in _run(settings, "quality", "--json").splitlines()]
    assert lines == [each.as_json() for each in figures]
    told: dict[str, Any] = json.loads(_run(settings, "labels", "--json"))
    assert told["partitions"] == 4
    assert told["events"]["labelled"] + told["events"]["pending"] + told["events"]["retracted"] == EVENTS
    assert told["events"]["conflicts"] > 0
    assert told["delay_days"]["p50"] == pytest.approx(7, rel=1 / 32)
    assert "nobody has spoken" in _run(settings, "labels")


def _run(settings: Settings, *arguments: str) -> str:
    command = [sys.executable, "-m", "services", *arguments]
    environment = {"MILLSTREAM_STATE_DIR": str(settings.state_dir), "PATH": "/usr/bin:/bin", "COLUMNS": "200"}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120).stdout
