"""Labels in disorder, corrected and retracted: quality ends as recomputed from what was said, and is shown."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_score, recall_score

from cards import events
from label_loop import as_of_ms, figures, labelled, scored
from millstream.adapters.embedded import endpoints as servers
from millstream.adapters.kafka.producer import Deliveries, drain, open_producer, publish
from millstream.app.quality_figures import read_figures
from millstream.app.setup import initialise
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.core.metrics import DAY_MS
from millstream.core.text import as_text
from millstream.settings import Settings, load_settings
from millstream.topology import LABELS, QUALITY_CHANGELOG, SCORED
from quality_oracle import Figures, recomputed
from running import Workers, committed, wait_until
from statements import PRECEDENCE, label_records, statements

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


def test_quality_ends_as_recomputed(settings: Settings) -> None:
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

    event_keys = as_text(batch.columns["customer_id"])
    event_values = RecordWriter(assembly.contract.schema).encode(batch)
    send(LABELS, keys[:400], values[:400])
    environment = {
        "MILLSTREAM_CHECKPOINT_INTERVAL_MS": "400",
        "MILLSTREAM_LABEL_PRECEDENCE": PRECEDENCE,
        "MILLSTREAM_QUALITY_GROUP": GROUP,
    }
    workers = Workers(Path(settings.state_dir), environment)
    stages = ["customer", "terminal", "join", "quality"]
    try:
        workers.start("all", stages)
        for end in range(AT_ONCE, EVENTS + 1, AT_ONCE):
            # Not all at a time: a partition that is scored a week ahead of another makes the other's events late.
            some = slice(end - AT_ONCE, end)
            send("transactions", event_keys[some], event_values[some])
            wait_until(lambda end=end: len(committed(kafka, SCORED)) == end, 120, workers)
        send(LABELS, keys[400:], values[400:])
        wait_until(lambda: labelled(assembly, kafka) == believed, 60, workers)
        wanted = recomputed(assembly, scored(assembly, kafka), said, believed, as_of_ms(assembly, kafka, said))
        wait_until(lambda: figures(assembly, kafka) == wanted, 60, workers)
        assert workers.stop("all") == 0
    finally:
        workers.end()
    assert figures(assembly, kafka) == wanted
    _check_with_sklearn(scored(assembly, kafka), believed, wanted)
    _check_changelog(kafka)
    _check_commands(settings)


def _check_with_sklearn(answered: Batch, believed: dict[int, tuple[float, int]], told: Figures) -> None:
    """The answers of a day with all its labels, by another library."""
    days = answered.columns["event_time_ms"] // DAY_MS
    checked = 0
    for day in np.unique(days).tolist():
        rows = [i for i in np.flatnonzero(days == day).tolist() if answered.columns["transaction_id"][i] in believed]
        truth = np.array([believed[int(answered.columns["transaction_id"][i])][0] for i in rows])
        called = answered.columns["decision"][rows] == "block"
        key = f"delayed|baseline|0|answer|{day}|180|"
        checked += len(rows)
        if not truth.any():  # the first day has two events, none of them a fraud
            assert told[f"{key}|recall"][0] is None
            continue
        at = {metric: told[f"{key}|{metric}"] for metric in ("precision", "recall", "average_precision")}
        assert at["recall"][0] == pytest.approx(recall_score(truth, called), abs=1e-12)
        assert at["precision"][0] == pytest.approx(precision_score(truth, called), abs=1e-12)
        scores = answered.columns["score"][rows]
        assert at["average_precision"][0] == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
        assert at["recall"][4:] == (len(rows) / int((days == day).sum()), len(rows), int(truth.sum()))
        assert at["recall"][3] is False, "nothing is final before half a year is over"
    assert checked == len(believed)
    assert any(key.endswith(f"|{GROUP}=*|recall_gap") for key in told)
    assert {key.split("|")[4] for key, values in told.items() if values[3]} > {""}, "days of a week old are final"


def _check_changelog(kafka: Mapping[str, str]) -> None:
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
    assert "without a label so far" in _run(settings, "labels")


def _run(settings: Settings, *arguments: str) -> str:
    command = [sys.executable, "-m", "millstream", *arguments]
    environment = {"MILLSTREAM_STATE_DIR": str(settings.state_dir), "PATH": "/usr/bin:/bin", "COLUMNS": "200"}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120).stdout
