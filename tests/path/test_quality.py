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
from running import Workers, committed, wait_until
from sklearn.metrics import average_precision_score, precision_score, recall_score
from statements import PRECEDENCE, Said, label_records, statements

from services.adapters import endpoints as servers
from services.adapters.producer import Deliveries, drain, open_producer, publish
from services.cli.assembly import Assembly
from services.cli.measuring import counted
from services.cli.quality_figures import read_figures
from services.cli.setup import initialise
from services.core.avro.decode import RecordReader
from services.core.avro.encode import RecordWriter
from services.core.batch import Batch
from services.core.metrics import DAY_MS
from services.core.partitioner import partition_of
from services.core.quality.board import Board
from services.core.quality.report import Reporter
from services.core.quality.topic import as_batch, with_gaps
from services.core.text import as_text
from services.settings import Settings, load_settings
from services.topology import EXAMPLES, LABELS, QUALITY, QUALITY_CHANGELOG, SCORED

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

SEED = 11
EVENTS = 1_500
GROUP = "transaction_context__is_night"
VALUES = ("value", "lower", "upper", "mature", "coverage", "examples", "positives")
Figures = dict[str, tuple[object, ...]]


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

    send(LABELS, keys[:400], values[:400])
    event_values = RecordWriter(assembly.contract.schema).encode(batch)
    send("transactions", as_text(batch.columns["customer_id"]), event_values)
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
            send(LABELS, keys[start : start + 500], values[start : start + 500])
            time.sleep(rng.uniform(0.0, 0.6))
            workers.kill("all")
            workers.start("all", stages)
            wait_until(lambda: workers.ready("all"), 60, workers)
        wait_until(lambda: len(committed(kafka, SCORED)) == EVENTS, 90, workers)
        wanted = _recomputed(assembly, kafka, said, believed)
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


def _recomputed(
    assembly: Assembly, kafka: Mapping[str, str], said: list[Said], believed: dict[int, tuple[float, int]]
) -> Figures:
    """Return the figures by key, from scored records, what is believed of them, and how far labels had come."""
    scored = _scored(assembly, kafka)
    ids = scored.columns["transaction_id"].tolist()
    rows = np.array([i for i, event in enumerate(ids) if event in believed])
    final = [believed[ids[row]] for row in rows.tolist()]
    examples = scored.take(rows).with_columns(
        {
            "event_id": np.array([str(ids[row]) for row in rows.tolist()], dtype=object),
            "label": np.array([label for label, _ in final]),
            "label_known_at_ms": np.array([at_ms for _, at_ms in final]),
            "revision": np.ones(len(rows), dtype=np.int64),
        }
    )
    stage = assembly.quality_stage(assembly.resolver())
    board = Board(stage.declared.maturities_days)
    board.update(assembly.measured.examples(examples))
    every = counted(assembly.measured)(scored)
    for day in {seen.day for seen in every}:
        board.tell(0, day, {seen: count for seen, count in every.items() if seen.day == day})
    reader = RecordReader(assembly.examples_schema, assembly.resolver())
    published = reader.decode([each.value() for each in committed(kafka, EXAMPLES)], 1 << 30).batch
    partitions = partition_of([str(each[0]).encode() for each in said], 4)
    known_ms = np.array([each[2] for each in said])
    slowest_ms = min(int(known_ms[partitions == partition].max()) for partition in range(4))
    as_of_ms = min(slowest_ms, int(published.columns["label_known_at_ms"].max()))
    return _by_key(as_batch(with_gaps(Reporter(board).report(as_of_ms)), as_of_ms))


def _published(assembly: Assembly, kafka: Mapping[str, str]) -> Figures:
    newest = {each.key(): each.value() for each in committed(kafka, QUALITY)}
    reader = RecordReader(assembly.contracts[QUALITY].schema, assembly.resolver())
    return _by_key(reader.decode(list(newest.values()), 1 << 30).batch)


def _by_key(batch: Batch) -> Figures:
    """Return what figures say, but for when it was said and what is empty."""
    nulls = {name: batch.is_null(name) for name in VALUES}
    rows = zip(*(batch.columns[name].tolist() for name in VALUES), strict=True)
    return {
        key: tuple(None if nulls[name][i] else value for name, value in zip(VALUES, row, strict=True))
        for i, (key, row) in enumerate(zip(batch.columns["key"].tolist(), rows, strict=True))
        if row[VALUES.index("examples")]
    }


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
        at = {metric: figures[f"{key}|{metric}"] for metric in ("precision", "recall", "average_precision")}
        assert at["recall"][0] == pytest.approx(recall_score(truth, called), abs=1e-12)
        assert at["precision"][0] == pytest.approx(precision_score(truth, called), abs=1e-12)
        scores = scored.columns["score"][rows]
        assert at["average_precision"][0] == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
        assert at["recall"][4:] == (len(rows) / int((days == day).sum()), len(rows), int(truth.sum()))
        assert at["recall"][3] is False, "nothing is final before half a year is over"
        checked += len(rows)
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
