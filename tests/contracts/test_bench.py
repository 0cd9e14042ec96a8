"""The benchmark's own parts: its events, its oracle, its model and its report."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from services.adapters.contracts import load_contract
from services.cli.bench.measure import Latency, Throughput
from services.cli.bench.model import train_model
from services.cli.bench.oracle import FEATURES, Answer, features_of, wrong_answers
from services.cli.bench.report import print_report
from services.cli.bench.run import BenchPlan, SideResult, _method, _ratios
from services.cli.bench.sides import own_environ
from services.cli.bench.workload import DAY_MS, Workload, generate
from services.core.avro.schema import Schema
from services.settings import load_settings


@pytest.fixture(scope="module")
def schema() -> Schema:
    return load_contract(load_settings({}), "transactions").schema


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    booster = train_model(1)
    file = tmp_path_factory.mktemp("bench") / "model.txt"
    booster.save_model(str(file))
    return booster, file


def test_events_are_seeded_ordered_and_keyed_by_customer(schema: Schema) -> None:
    workload = generate(2000, schema, 3)
    assert workload.values == generate(2000, schema, 3).values
    assert workload.values != generate(2000, schema, 4).values
    assert (np.diff(workload.times_ms) >= 0).all()
    assert workload.keys == [str(each).encode() for each in workload.customers]


def test_windows_leave_out_their_far_edge_and_later_events() -> None:
    times_ms = np.array([0, 1, DAY_MS, DAY_MS, DAY_MS + 1])
    amounts = np.array([100.0, 10.0, 1.0, 1000.0, 2.0])
    workload = Workload(np.array([7, 7, 7, 8, 7]), times_ms, amounts, [], [])
    assert features_of(workload, 2)[:2] == (2.0, 5.5)
    assert features_of(workload, 4)[:2] == (2.0, 1.5)
    assert features_of(workload, 4)[2:4] == (4.0, 113 / 4)


def test_oracle_finds_a_wrong_feature_and_a_wrong_score(schema: Schema, model: tuple[Any, Path]) -> None:
    booster, file = model
    workload = generate(500, schema, 3)
    features = {event: features_of(workload, event) for event in (10, 200, 499)}
    right = {
        event: Answer(row, float(booster.predict(np.array([row]), num_threads=1)[0])) for event, row in features.items()
    }
    assert wrong_answers(workload, right, str(file)) == []
    off = (features[200][0] + 1, *features[200][1:])
    assert len(wrong_answers(workload, {**right, 200: Answer(off, right[200].score)}, str(file))) == 1
    assert len(wrong_answers(workload, {**right, 10: Answer(features[10], right[10].score + 1e-6)}, str(file))) == 1


def test_model_reads_the_features_by_name(model: tuple[Any, Path]) -> None:
    assert model[0].feature_name() == list(FEATURES)


def test_operators_endpoints_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLSTREAM_KAFKA_BOOTSTRAP_SERVERS", "production:9092")
    monkeypatch.setenv("MILLSTREAM_REDIS_URL", "redis://production")
    monkeypatch.setenv("MILLSTREAM_BATCH_RECORDS", "100")
    assert {name for name in own_environ() if name.startswith("MILLSTREAM_")} == {"MILLSTREAM_BATCH_RECORDS"}


def test_report_shows_ratio_and_what_fell_behind() -> None:
    quick = Throughput(100, 0, 1.0, 100_000.0, 0.5, 400.0, True)
    slow = Throughput(100, 0, 1.0, 2_000.0, 30.0, 300.0, True)
    steady = Latency(1000, 10_000, 9.0, 12.0, 14.4, 0, False, 0.1)
    behind = Latency(1000, 10_000, float("inf"), float("inf"), float("inf"), 9000, True, 1.0)
    results = [
        SideResult("millstream", "exactly-once", "ours", quick, [steady], 300),
        SideResult("stock Faust", "at-least-once", "theirs", slow, [behind], 300, ["event 5: wrong"]),
    ]
    report = {"method": _method(BenchPlan()), "sides": [each.as_json() for each in results], **_ratios(results)}
    assert report["ratio"] == {"events_per_s": 50.0, "cpu_per_event": 60.0}
    assert report["sides"][1]["latency"][0]["p50_ms"] is None
    out = io.StringIO()
    print_report(report, Console(file=out, width=120))
    text = out.getvalue()
    for part in ("100,000", "9 / 14", "falls behind", "50.0 times", "1/60.0", "event 5: wrong"):
        assert part in text
