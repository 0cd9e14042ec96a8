"""The process's metrics, as Prometheus would read them, and the endpoint that serves them."""

import json
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from millstream.adapters.telemetry.endpoint import TelemetryEndpoint, worker_file
from millstream.adapters.telemetry.metrics import Telemetry, serve
from millstream.adapters.telemetry.process_usage import usage_of
from millstream.core.batch import Batch
from millstream.errors import Misconfigured
from millstream.runtime.flow import Flow
from millstream.runtime.log.records import Output, Records
from millstream.runtime.telemetry_observer import TelemetryObserver
from millstream.runtime.work import Processed
from millstream.settings import load_settings
from millstream.topology import PREDICTIONS


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counts_add_up_per_label() -> None:
    telemetry = Telemetry()
    telemetry.count("millstream_events_total", 5, stage="customer")
    telemetry.count("millstream_events_total", 2, stage="customer")
    telemetry.count("millstream_events_total", 1, stage="terminal")
    seen = samples(telemetry.exposition().decode())
    assert seen["millstream_events_total", (("stage", "customer"),)] == 7
    assert seen["millstream_events_total", (("stage", "terminal"),)] == 1
    assert telemetry.value("millstream_events_total", stage="customer") == 7
    assert seen["millstream_view_failures_total", ()] == 0, "alerts on a rate need the zero"


def test_gauge_is_set_and_forgotten() -> None:
    telemetry = Telemetry()
    telemetry.gauge("millstream_lag_records", 9, stage="customer", partition=3)
    telemetry.gauge("millstream_lag_records", 4, stage="customer", partition=3)
    key = ("millstream_lag_records", (("partition", "3"), ("stage", "customer")))
    assert samples(telemetry.exposition().decode())[key] == 4
    telemetry.forget("millstream_lag_records", stage="customer", partition=3)
    assert key not in samples(telemetry.exposition().decode())


def test_histogram_counts_upper_bounds_in() -> None:
    telemetry = Telemetry()
    telemetry.observe("millstream_end_to_end_seconds", np.array([0.001, 0.002, 0.0021, 99.0]), stage="s")
    telemetry.observe("millstream_end_to_end_seconds", 0.05, stage="s")
    seen = samples(telemetry.exposition().decode())
    name = "millstream_end_to_end_seconds"
    buckets = {dict(labels)["le"]: value for (n, labels), value in seen.items() if n == f"{name}_bucket"}
    assert buckets["0.002"] == 2
    assert buckets["0.005"] == 3
    assert buckets["0.05"] == 4
    assert buckets["60.0"] == 4
    assert buckets["+Inf"] == 5
    assert seen[f"{name}_count", (("stage", "s"),)] == 5
    assert seen[f"{name}_sum", (("stage", "s"),)] == pytest.approx(99.0551)


def test_wrong_labels_are_refused() -> None:
    telemetry = Telemetry()
    with pytest.raises(ValueError, match="stage"):
        telemetry.count("millstream_events_total", 1)
    with pytest.raises(ValueError, match="color"):
        telemetry.count("millstream_events_total", 1, stage="a", color="b")
    with pytest.raises(ValueError, match="only goes up"):
        telemetry.count("millstream_events_total", -1, stage="a")


@pytest.mark.parametrize("order", ["feast first", "feast last"])
def test_feast_does_not_change_the_metrics(order: str) -> None:
    """feast.metrics turns prometheus_client's values into files shared between processes."""
    ours = "from millstream.adapters.telemetry.metrics import Telemetry"
    imports = ["import feast.metrics", ours] if order == "feast first" else [ours, "import feast.metrics"]
    script = "\n".join(
        [
            "import warnings; warnings.simplefilter('ignore')",
            *imports,
            "import os; assert 'PROMETHEUS_MULTIPROC_DIR' in os.environ, 'feast changed: this test shows nothing'",
            "before = set(os.listdir(os.environ['PROMETHEUS_MULTIPROC_DIR']))",
            "telemetry = Telemetry()",
            "telemetry.count('millstream_events_total', 3, stage='s')",
            "telemetry.gauge('millstream_partitions', 2, stage='s')",
            "assert set(os.listdir(os.environ['PROMETHEUS_MULTIPROC_DIR'])) == before, 'values went to files'",
            "print(telemetry.exposition().decode())",
        ]
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = samples(done.stdout)
    assert seen["millstream_events_total", (("stage", "s"),)] == 3
    assert seen["millstream_partitions", (("stage", "s"),)] == 2
    assert {name.partition("_")[0] for name, _labels in seen} == {"millstream"}, "another library's metrics got in"


def get(endpoint: TelemetryEndpoint, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{endpoint.host}:{endpoint.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@dataclass
class Worker:
    telemetry: Telemetry
    endpoint: TelemetryEndpoint
    file: Path
    ill: dict[str, str]
    unready: dict[str, str]


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    telemetry = Telemetry()
    ill: dict[str, str] = {}
    unready = {"customer": "partition 1 is being recovered"}
    settings = load_settings({}, state_dir=tmp_path)
    with serve(telemetry, settings, "a/b-0", ["customer"], lambda: unready, lambda: ill) as endpoint:
        yield Worker(telemetry, endpoint, worker_file(tmp_path, "a/b-0"), ill, unready)


def test_endpoint_serves_metrics_fresh(worker: Worker) -> None:
    status, text = get(worker.endpoint, "/metrics")
    assert status == 200
    assert samples(text)["millstream_process_rss_bytes", ()] > 10_000_000


@pytest.mark.parametrize(("wrong", "told"), [(None, "DEBUG"), (ZeroDivisionError("oh"), "ERROR")])
def test_a_client_that_goes_away_is_no_error_and_an_error_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: Exception | None, told: str
) -> None:
    gone = threading.Event()

    def slowly() -> bytes:
        gone.wait(10)
        if wrong is not None:
            raise wrong
        return b"x" * 10_000_000

    caplog.set_level("DEBUG")
    endpoint = TelemetryEndpoint(
        slowly, health=dict, ready=dict, host="127.0.0.1", port=0, state_dir=tmp_path, worker="w", stages=[]
    )
    try:
        with socket.create_connection((endpoint.host, endpoint.port)) as client:
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.set()
        until_s = time.monotonic() + 10
        while not caplog.records and time.monotonic() < until_s:
            time.sleep(0.02)
    finally:
        endpoint.close()
    assert [record.levelname for record in caplog.records] == [told]


def test_endpoint_tells_why_not(worker: Worker) -> None:
    assert get(worker.endpoint, "/health") == (200, '{"status": "ok", "reasons": {}}\n')
    status, text = get(worker.endpoint, "/ready")
    assert status == 503
    assert json.loads(text)["reasons"] == {"customer": "partition 1 is being recovered"}
    worker.unready.clear()
    worker.ill["watchdog"] = "stage customer has not come round for 130 s"
    assert get(worker.endpoint, "/ready")[0] == 200
    assert get(worker.endpoint, "/health?verbose")[0] == 503
    assert get(worker.endpoint, "/etc/passwd")[0] == 404


def test_worker_file_names_the_port_and_goes_with_the_worker(worker: Worker) -> None:
    said = json.loads(worker.file.read_text())
    assert said["host"] == "127.0.0.1"
    assert said["port"] == worker.endpoint.port > 0
    assert said["stages"] == ["customer"]
    worker.endpoint.close()
    assert not worker.file.exists()


def test_taken_port_is_named(worker: Worker, tmp_path: Path) -> None:
    settings = load_settings({}, state_dir=tmp_path, metrics_port=worker.endpoint.port)
    with pytest.raises(Misconfigured, match="MILLSTREAM_METRICS_PORT"), serve(Telemetry(), settings, "b", [], dict):
        pass


def test_usage_includes_children() -> None:
    burn = "import time\nwhile time.process_time() < 0.4: pass\nprint('done', flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        alone, tree = usage_of(process.pid, with_children=False), usage_of(process.pid)
        process.communicate(b"\n")
    assert tree.cpu_s - alone.cpu_s >= 0.25
    assert tree.rss_bytes > alone.rss_bytes > 0
    assert usage_of(process.pid).rss_bytes == 0


def test_a_stage_that_answers_and_takes_in_labels_counts_its_answers() -> None:
    telemetry = Telemetry()
    answers = {
        "arm": np.array(["champion", "online", "champion"], dtype=object),
        "model": np.array(["fraud"] * 3, dtype=object),
        "model_version": np.array([3, 41, 3]),
    }
    flows = [Batch(3, answers), Batch(2, {"label": np.array([0.0, 1.0])})]
    records = [
        Records(name, *np.zeros((3, each.length), np.int64), [b"k"] * each.length, [b"v"] * each.length)
        for name, each in zip(("transactions.terminal", "examples.terminal"), flows, strict=True)
    ]
    processed = Processed(
        tuple(Flow(each, np.arange(len(each)), batch) for each, batch in zip(records, flows, strict=True)),
        [Output(PREDICTIONS, [b"k"] * 3, [b"v"] * 3)],
    )
    TelemetryObserver(telemetry, None, 60_000).processed("terminal", 5, processed, {})
    counted = {arm: telemetry.value("millstream_predictions_total", arm=arm, model="fraud", version=version)
               for arm, version in (("champion", 3), ("online", ""))}  # fmt: skip
    assert counted == {"champion": 2, "online": 1}
    assert telemetry.value("millstream_model_version", model="fraud") == 3
