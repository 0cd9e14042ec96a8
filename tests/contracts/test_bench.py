"""The benchmark's own parts: its events, its oracle, its model and its report."""

import io
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from millstream.adapters.files.contracts import load_contract
from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.schema import Schema
from millstream.core.batch import Batch
from millstream.settings import load_settings
from millstream_lab import bench
from millstream_lab.bench import audit, labels, learning, staleness, view
from millstream_lab.bench.measure import Latency, Throughput
from millstream_lab.bench.memory import MemoryWatch
from millstream_lab.bench.model import train_model
from millstream_lab.bench.one_stage import SideResult, complaints, ratios
from millstream_lab.bench.oracle import FEATURES, Answer, features_of, wrong_answers
from millstream_lab.bench.path import reference_events
from millstream_lab.bench.plan import BenchPlan, Measured, long_form
from millstream_lab.bench.report import as_markdown, print_report, write_markdown
from millstream_lab.bench.run import PARTS, machine_facts, run_bench, run_part
from millstream_lab.bench.sides import FEATURE_REPO, own_environ, own_environment
from millstream_lab.bench.stack import Stack, as_it_is, own_stack, set_up
from millstream_lab.bench.workload import DAY_MS, Workload, generate
from millstream_lab.evaluation.compare import Pace


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
    workload = Workload(np.array([7, 7, 7, 8, 7]), np.zeros(5, dtype=np.int64), times_ms, amounts, [], [])
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
    own = {name: value for name, value in own_environ().items() if name.startswith("MILLSTREAM_")}
    assert own == {"MILLSTREAM_BATCH_RECORDS": "100", "MILLSTREAM_PROJECT": ""}
    before = dict(os.environ)
    with own_environment():
        assert {name for name in before if name not in os.environ} == {
            "MILLSTREAM_KAFKA_BOOTSTRAP_SERVERS",
            "MILLSTREAM_REDIS_URL",
        }
    assert dict(os.environ) == before


QUICK = Throughput(100, 0, 1.0, 100_000.0, 0.5, True)
SLOW = Throughput(100, 0, 1.0, 2_000.0, 30.0, True)
MEMORY = {"worker": {"peak_mb": 400.0, "steady_mb": 300.0}}
REPO = Path(__file__).parents[2] / "feature_repo"
TINY = BenchPlan(
    rates=(),
    limit_s=20,
    partitions=2,
    reference_repo=REPO,
    path_events=3_000,
    recovery_events=3_000,
    recovery_cases=("checkpointed",),
    join_events=3_000,
    ledger_pending=20_000,
    ledger_joins=5_000,
    learner_examples=1_000,
    learner_rounds=2,
)


def sides() -> list[SideResult]:
    steady = Latency(1000, 10_000, 9.0, 12.0, 14.4, 0, False, 0.1)
    behind = Latency(1000, 10_000, float("inf"), float("inf"), float("inf"), 9000, True, 1.0)
    return [
        SideResult("millstream", "exactly-once", "ours", QUICK, [steady], MEMORY, 300),
        SideResult("stock Faust", "at-least-once", "theirs", SLOW, [behind], MEMORY, 300, ["event 5: wrong"]),
    ]


def section(name: str, measured: Measured, plan: BenchPlan = TINY) -> dict[str, Any]:
    """Return a part's section of a report, from figures made by hand or measured."""
    return {
        "title": PARTS[name].title,
        "method": PARTS[name].method(plan),
        "figures": measured.figures,
        "wrong": measured.wrong,
        "machine": {**machine_facts(plan), "load_before": 0.5, "seconds": 1.0},
    }


def printed(report: dict[str, Any]) -> str:
    out = io.StringIO()
    print_report(report, Console(file=out, width=200))
    return out.getvalue()


def one_stage() -> dict[str, Any]:
    results = sides()
    figures = {"sides": [each.as_json() for each in results], "ratio": ratios(results)}
    return {"parts": {"one-stage": section("one-stage", Measured(figures, complaints(results)))}}


def test_one_stage_shows_ratio_and_what_fell_behind() -> None:
    report = one_stage()
    figures = report["parts"]["one-stage"]["figures"]
    assert figures["ratio"] == {"events_per_s": 50.0, "cpu_per_event": 60.0}
    assert figures["sides"][1]["latency"][0]["p50_ms"] is None
    text = printed(report)
    for part in ("100,000", "9 / 14", "falls behind", "50.0", "60.0", "400 / 300", "stock Faust: event 5: wrong"):
        assert part in text


def test_doubled_outputs_count_against_exactly_once_only() -> None:
    ours, theirs = sides()
    ours.throughput = theirs.throughput = Throughput(100, 3, 1.0, 1.0, 1.0, True)
    assert complaints([ours, theirs]) == ["stock Faust: event 5: wrong", "millstream: 3 outputs are doubled"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ([], 0),
        (["--at-least", "49", "--at-least-cpu", "59"], 0),
        (["--at-least", "51"], 1),
        (["--at-least-cpu", "61"], 1),
        (["--part", "path", "--at-least-cpu", "1"], 2),
        (["--part", "nonsense"], 2),
    ],
)
def test_the_guard_is_an_exit_code(options: list[str], code: int, tmp_path: Path) -> None:
    app = typer.Typer()
    bench.register(app)
    report = one_stage()
    report["parts"]["one-stage"]["wrong"] = []
    file = tmp_path / "report.json"
    file.write_text(json.dumps(report))
    assert CliRunner().invoke(app, ["--show", "--json", str(file), *options]).exit_code == code


def test_wrong_answers_fail_the_command(tmp_path: Path) -> None:
    app = typer.Typer()
    bench.register(app)
    file = tmp_path / "report.json"
    file.write_text(json.dumps(one_stage()))
    assert CliRunner().invoke(app, ["--show", "--json", str(file)]).exit_code == 1


def test_the_page_holds_exactly_what_the_figures_say(tmp_path: Path) -> None:
    page = Path(bench.__file__).parent / "PERFORMANCE.md"
    figures = Path(bench.__file__).parent / "performance.json"
    copy = tmp_path / page.name
    copy.write_text(page.read_text())
    report = json.loads(figures.read_text())
    write_markdown(report, copy)
    assert copy.read_text() == page.read_text()
    assert [name for name in PARTS if name in report["parts"]] == list(report["parts"]) != []
    assert not [sentence for part in report["parts"].values() for sentence in part["wrong"]]


def test_memory_is_peak_and_steady_per_worker() -> None:
    samples = iter([5_000_000, 9_000_000, *[7_000_000] * 10])
    watch = MemoryWatch({"a": 1}, lambda _pid: next(samples))
    for _ in range(9):
        watch._once()
    assert watch.start().stop() == {"a": {"peak_mb": 9.0, "steady_mb": 7.0}}


def test_differences_from_feasts_rows_are_told() -> None:
    rows = {b"a": {b"x": b"1"}, b"b": {b"x": b"2"}}
    assert view.differences(rows, dict(rows), 2) == []
    assert view.differences({**rows, b"b": {b"x": b"3"}}, rows, 2) == ["1 rows differ from Feast's"]
    assert view.differences({b"a": rows[b"a"]}, rows, 2) == ["Millstream's writer: 1 of 2 rows"]


def test_probes_are_alone_with_their_keys_and_never_found_is_infinitely_stale(schema: Schema) -> None:
    workload = generate(400, schema, 3, customers=300, terminals=300)
    probes = staleness.probes_of(workload, 100, 300, 20, skip=50)
    assert len(probes) > 5
    assert probes.min() >= 150
    for keys in (workload.customers, workload.terminals):
        assert all((keys[100:300] == keys[probe]).sum() == 1 for probe in probes)
    due_s = np.zeros(100)
    found = staleness._percentiles({0: 0.010, 1: 0.020, 2: float("inf")}, due_s, 0)
    assert found == {"p50_ms": 20.0, "p95_ms": None, "p99_ms": None, "probes": 3, "found": 2}


def test_scaling_and_keys_show_every_row() -> None:
    figures = {
        **{"events_per_s": 50_000.0, "cpu_s_per_100k": 0.7, "events": 2_000, "memory": MEMORY},
        **{"state_keys": 500.0, "state_entries": 2_000.0, "state_bytes": 1e6, "rss_grown_mb": 5.0},
    }
    shared = Measured({"events": 2_000, "partitions": 8, "workers": {"1": figures, "2": figures}})
    keys = Measured({"keys": {"500": figures}})
    text = printed({"parts": {"scaling": section("scaling", shared), "keys": section("keys", keys)}})
    for part in ("50,000", "0.70", "2,000", "500", "10,000", "400 / 300"):
        assert part in text


def test_the_long_form_is_longer_in_everything() -> None:
    plan = BenchPlan()
    longer = long_form(plan)
    for name in ("paced_s", "limit_s", "path_events", "view_rows", "scaling_events", "keys_events", "ledger_pending"):
        assert getattr(longer, name) > getattr(plan, name)
    assert max(longer.keys) == 2_000_000


@pytest.fixture(scope="module")
def bench_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with own_stack(tmp_path_factory.mktemp("bench-stack"), print) as running:
        yield running


@pytest.mark.kafka
@pytest.mark.redis
def test_whole_path_answers_are_right_and_tampering_shows(bench_stack: Stack) -> None:
    found = run_part("path", TINY, bench_stack, lambda _step, _total: lambda _done: None)
    assert found["wrong"] == []
    (figures,) = found["figures"]["layouts"].values()
    assert (figures["events"], figures["doubled"], figures["complete"]) == (3_000, 0, True)
    assert figures["view_rows_written"] > 3_000
    assert {name: set(each) for name, each in figures["memory"].items()} == {
        "customer": {"peak_mb", "steady_mb"},
        "terminal": {"peak_mb", "steady_mb"},
    }
    assert "a worker per stage" in as_markdown({"parts": {"path": found}})
    # The topics are still there: the same check must find what is not as it should be.
    job = as_it_is(bench_stack, REPO, TINY.partitions)
    workload = reference_events(job, TINY.path_events, TINY.seed)
    assert audit.check(job, workload, 3_000) == []
    assert audit.check(job, workload, 3_010) == ["scored: 10 of 3,010 events are missing"]
    workload.amounts[:] += 0.01
    assert any("customer_activity" in sentence for sentence in audit.check(job, workload, 3_000))
    counted = audit.OutputCounts(3_000, 2)
    assert audit.complaints("scored", counted, 3_000, "exactly_once") == ["scored: 2 are doubled"]
    assert audit.complaints("scored", counted, 3_000, "at_least_once") == []


@pytest.mark.kafka
@pytest.mark.redis
def test_recovery_brings_back_every_entry(bench_stack: Stack) -> None:
    found = run_part("recovery", TINY, bench_stack, lambda _step, _total: lambda _done: None)
    assert found["wrong"] == []
    (case,) = found["figures"]["cases"].values()
    assert (case["state_entries"], case["replayed"]) == (3_000, 0)
    assert case["rows"] > 1_000
    assert case["start_to_ready_s"] > case["process_s"] > 0
    assert "killed after a checkpoint" in printed({"parts": {"recovery": found}})


@pytest.mark.kafka
@pytest.mark.redis
def test_both_writers_leave_the_same_rows(bench_stack: Stack) -> None:
    plan = BenchPlan(view_rows=300, view_rounds=1, partitions=2)
    job = set_up(bench_stack, FEATURE_REPO, plan.partitions)
    measured = view.write_both(plan, job, lambda _step, _total: lambda _done: None)
    assert measured.wrong == []
    assert measured.figures["millstream"]["rows_per_s"] > 0
    assert measured.figures["feast"]["rows_per_s"] > 0
    # Feast wrote last; other rows than these must show when it reads.
    (declared,) = job.assembly.declaration.views
    assert view.wrong_reads(job, declared, view.made_up_rows(declared, 300, plan.seed)) == []
    assert view.wrong_reads(job, declared, view.made_up_rows(declared, 300, plan.seed + 1)) != []


def test_a_learner_that_falls_behind_river_is_told_by_how_much() -> None:
    assert learning.complaints(Pace(100.0, 110.0, 120.0, 90.0)) == []
    (told,) = learning.complaints(Pace(100.0, 110.0, 120.0, 80.0))
    assert "20% slower than River's own loop" in told
    measured = Measured({**asdict(Pace(100.0, 110.0, 120.0, 85.0)), "features": 19, "model": "Scaler | Logistic"})
    text = printed({"parts": {"learner": section("learner", measured)}})
    for part in ("Scaler | Logistic", "+15.0%", "+22.7%", "+29.2%"):
        assert part in text


@pytest.mark.kafka
@pytest.mark.redis
def test_labels_are_joined(bench_stack: Stack) -> None:
    joined = run_part("join", TINY, bench_stack, lambda _step, _total: lambda _done: None)
    assert joined["wrong"] == []
    figures = joined["figures"]
    assert (figures["events"], figures["doubled"], figures["complete"]) == (3_000, 0, True)


def test_ledger_and_learner_are_measured_without_servers(tmp_path: Path) -> None:
    parts: dict[str, Any] = {}
    said: list[str] = []
    run_bench(
        ["learner", "ledger"], TINY, tmp_path, said.append, lambda _step, _total: lambda _done: None, parts.__setitem__
    )
    assert not [each for each in said if "starting" in each]
    assert parts["ledger"]["wrong"] == []
    ledger, learner = (parts[name]["figures"] for name in ("ledger", "learner"))
    assert len(ledger["fill_rss_bytes"]) == 4 - 1
    assert ledger["disk_bytes"] > 1_000_000
    assert min(learner[name] for name in learning.BASELINES) > 100
    assert "StandardScaler | LogisticRegression" in printed({"parts": parts})


def test_a_wrong_example_is_told(bench_stack: Stack) -> None:
    job = set_up(bench_stack, REPO, TINY.partitions)
    scored, said = labels.scored_and_labels(job, 50, 1, lambda _step, _total: lambda _done: None)
    made = scored.with_columns(
        {
            "event_id": np.array([str(each) for each in scored.columns["transaction_id"].tolist()], dtype=object),
            "label": np.full(50, 0.0),
            "label_known_at_ms": scored.columns["event_time_ms"],
            "label_source": np.full(50, "bank", dtype=object),
            "label_delay_s": np.full(50, 7),
            "revision": np.full(50, 1),
            "previous_label": np.zeros(50),
            "previous_known_at_ms": np.zeros(50, dtype=np.int64),
            "joined_at_ms": scored.columns["event_time_ms"],
        }
    )
    values = RecordWriter(job.assembly.examples_schema).encode(made)
    kept = dict(enumerate(values))
    right = Batch(50, {**said.columns, "label": np.zeros(50)})
    assert labels.wrong_examples(job, scored, right, kept) == []
    (told,) = labels.wrong_examples(job, scored, Batch(50, {**said.columns, "label": np.ones(50)}), kept)
    assert told.startswith("50 of 50 examples")
    amounts = scored.columns["amount"].copy()
    amounts[7] += 1
    (told,) = labels.wrong_examples(job, scored.with_columns({"amount": amounts}), right, kept)
    assert told.startswith("1 of 50 examples")
    assert labels.wrong_examples(job, scored, right, {}) != []
