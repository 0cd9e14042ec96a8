"""The champion's expected figure is there before labels are; where the realised one parts, meaning has changed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from fakes_models import a_manifest
from millstream.adapters.embedded import endpoints as servers
from millstream.adapters.kafka.promotions import publish
from millstream.app.setup import initialise
from millstream.core.avro.encode import RecordWriter
from millstream.core.drift.declared import Monitors
from millstream.core.models.manifest import sha256
from millstream.ports import ModelVersion
from millstream.runtime.log.kafka_log import KafkaLog
from millstream.runtime.log.records import Output
from millstream.settings import Settings, load_settings
from millstream.topology import LABELS, SCORED
from running import Workers, wait_until
from statements import label_records
from watched import DAY_MS, START_MS, WEEK_MS, reference, scored, traffic

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

NAMES = ("customer_activity__customer_mean_amount_1d", "terminal_activity__terminal_mean_amount_1d")
DAYS, LABELLED_DAYS, TURNED_DAY = 5, 4, 2
DRAWS = 200


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A stack of its own: this test owns the real topics."""
    made = load_settings({}, state_dir=tmp_path_factory.mktemp("expected"))
    servers.start(made, print)
    yield made
    servers.stop(made)


def test_expected_and_realised_figures_part_where_scores_mean_something_else(settings: Settings) -> None:
    kafka = servers.resolve(settings).kafka
    assembly = initialise(settings, print)
    refused = _run(settings)
    assert refused.returncode == 78
    assert "millstream train INPUT --promote" in refused.stderr
    model, made = assembly.declaration.service.name, reference(NAMES, Monitors())
    manifest = a_manifest("body", model=model, reference=made).to_json()
    publish(kafka, ModelVersion(model, 1, manifest, "body", sha256("body")), 1)
    seen = traffic(DAYS, turned_ms=START_MS + TURNED_DAY * DAY_MS, seed=4)
    batch = scored(assembly.topology.stages[-1].output_schema, NAMES, model, seen)
    ids = batch.columns["transaction_id"].tolist()
    known = [
        (event, float(label), time_ms + WEEK_MS, "bank", "new")
        for event, label, time_ms in zip(ids, seen.labels.tolist(), seen.times_ms.tolist(), strict=True)
        if time_ms < START_MS + LABELLED_DAYS * DAY_MS
    ]
    writer = KafkaLog(kafka, group="test", transactional_id="test", exactly_once=False, transaction_timeout_ms=10_000)
    workers = Workers(Path(settings.state_dir), {"MILLSTREAM_CHECKPOINT_INTERVAL_MS": "300"})
    try:
        values = RecordWriter(assembly.topology.stages[-1].output_schema).encode(batch)
        writer.send([Output(SCORED, [str(each).encode() for each in ids], values)])
        writer.commit({})
        workers.start("all", ["measure", "join", "quality"])
        wait_until(lambda: len(_told(settings)) == DAYS, 120, workers)
        before = _told(settings)
        writer.send([Output(LABELS, *label_records(assembly.contracts, known))])
        writer.commit({})
        wait_until(lambda: sum(each["realised"] is not None for each in _told(settings)) >= LABELLED_DAYS, 120, workers)
        wait_until(lambda: _told(settings)[TURNED_DAY]["state"] == "final", 60, workers)
        after = _told(settings)
        assert workers.stop("all") == 0
    finally:
        workers.end()
        writer.close()
    assert {each["state"] for each in before} == {"no labels"}
    assert [(each["day"], each["expected"]) for each in before] == [(each["day"], each["expected"]) for each in after]
    assert after[-1]["state"] == "no labels"
    assert made.calibration is not None
    days, rng = (seen.times_ms - START_MS) // DAY_MS, np.random.default_rng(0)
    for day, told in enumerate(after[:LABELLED_DAYS]):
        scores, labels = seen.scores[days == day], seen.labels[days == day]
        chances = made.calibration(scores)
        drawn = [average_precision_score(rng.random(len(scores)) < chances, scores) for _ in range(DRAWS)]
        assert told["day"] == str(np.datetime64(START_MS + day * DAY_MS, "ms").astype("datetime64[D]"))
        assert told["events"] == len(scores)
        assert told["expected"] == pytest.approx(np.mean(drawn), abs=0.02)
        assert (told["lower"] <= told["expected"] <= told["upper"]) == (day < TURNED_DAY)
        if told["state"] == "final":
            assert told["realised"] == pytest.approx(average_precision_score(labels, scores), abs=1e-3)  # score cells
    shown = _run(settings).stdout
    assert "average precision by day" in shown
    assert "final" in shown
    assert "no labels" in shown


def _told(settings: Settings) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _run(settings, "--json").stdout.splitlines()]


def _run(settings: Settings, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "millstream", "drift", "performance", *options]
    environment = {"MILLSTREAM_STATE_DIR": str(settings.state_dir), "PATH": "/usr/bin:/bin", "COLUMNS": "200"}
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=120)
