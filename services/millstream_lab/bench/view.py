"""The Redis view: rows a second against Feast's own writer, and how stale a reader finds it."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import redis

from millstream.adapters.feast.codec import feature_field
from millstream.adapters.feast.repo import open_store, quiet_feast
from millstream.adapters.redis.view_writer import ViewWriter, open_online_view
from millstream.adapters.telemetry.process_usage import usage_of
from millstream.core.declaration import View
from millstream.ports import ViewRows
from millstream_lab.bench.plan import BenchPlan, Measured, Track, memory_text, number
from millstream_lab.bench.sides import FEATURE_REPO
from millstream_lab.bench.stack import Job, Stack, set_up
from millstream_lab.bench.staleness import measure_staleness
from millstream_lab.tables import Table

_EPOCH_US = 1_533_081_600_000_000
_DRAIN_S = 120.0
_READ = 200
SIDES = {"millstream": "Millstream's writer", "feast": "Feast's write_to_online_store"}


def measure_view(plan: BenchPlan, stack: Stack, track: Track) -> Measured:
    """Measure writing, then staleness."""
    measured = write_both(plan, set_up(stack, FEATURE_REPO, plan.partitions), track)
    found = measure_staleness(plan, stack, track)
    measured.figures["staleness"] = found.figures
    measured.wrong += found.wrong
    return measured


def made_up_rows(view: View, count: int, seed: int) -> ViewRows:
    """Return rows of distinct keys: whole numbers in integer features, amounts in the others."""
    random = np.random.default_rng(seed)
    columns = [
        random.poisson(20, count).astype(np.float64) if a.dtype == "int64" else random.gamma(2.0, 25.0, count)
        for a in view.aggregates
    ]
    times_us = _EPOCH_US + random.integers(0, 10**12, count)
    return ViewRows(view.name, np.arange(count, dtype=np.int64), np.column_stack(columns), times_us)


def write_both(plan: BenchPlan, job: Job, track: Track) -> Measured:
    """Write the same rows by each side in turn and compare what is stored."""
    declaration = job.assembly.declaration
    (view,) = declaration.views
    rows = made_up_rows(view, plan.view_rows, plan.seed)
    writer = ViewWriter(open_online_view(job.settings, declaration, job.stack.redis_url), [])
    writes = {"millstream": _ours(writer, rows), "feast": _feasts(job, view, rows)}
    progress = track("online view: writing rows, each side in turn", plan.view_rounds)
    spent: dict[str, list[tuple[float, float, float]]] = {name: [] for name in writes}
    stored: dict[str, dict[bytes, dict[bytes, bytes]]] = {}
    read: list[str] = []
    with redis.Redis.from_url(job.stack.redis_url) as client, closing(writer.start()):
        server: Any = client.info("server")
        for done in range(1, plan.view_rounds + 1):
            for name, write in writes.items():
                client.flushall()
                server_s, own_s, started_s = usage_of(server["process_id"]).cpu_s, time.process_time(), time.monotonic()
                write()
                seconds = time.monotonic() - started_s
                spent[name].append(
                    (seconds, time.process_time() - own_s, usage_of(server["process_id"]).cpu_s - server_s)
                )
                if done == plan.view_rounds:
                    stored[name] = _hashes(client)
                    if name == "millstream":
                        read = wrong_reads(job, view, rows)
            progress(done)
    figures: dict[str, Any] = {"rows": plan.view_rows, "features": len(view.aggregates), "rounds": plan.view_rounds}
    for name, rounds in spent.items():
        seconds, own_s, server_s = (statistics.median(column) for column in zip(*rounds, strict=True))
        figures[name] = {
            "rows_per_s": plan.view_rows / seconds,
            "client_us_per_row": own_s / plan.view_rows * 1e6,
            "server_us_per_row": server_s / plan.view_rows * 1e6,
        }
    figures["ratio"] = figures["millstream"]["rows_per_s"] / figures["feast"]["rows_per_s"]
    for found in stored["feast"].values():
        # Feast takes a stream view's key for one of its features and writes that too.
        found.pop(feature_field(view.name, view.join_key), None)
    return Measured(figures, read + differences(stored["millstream"], stored["feast"], plan.view_rows))


def _ours(writer: ViewWriter, rows: ViewRows) -> Callable[[], None]:
    def write() -> None:
        writer.offer([rows])
        writer.drain(_DRAIN_S)

    return write


def _feasts(job: Job, view: View, rows: ViewRows) -> Callable[[], None]:
    """Return Feast's way, with Feast's own Redis store: a data frame to ``write_to_online_store``."""
    import pandas as pd

    address = urlsplit(job.stack.redis_url)
    repo = job.stack.state_dir / "feast_repo"
    shutil.copytree(FEATURE_REPO, repo, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    yaml = repo / "feature_store.yaml"
    own = "  type: millstream.adapters.feast.online_store.MillstreamRedisOnlineStore\n"
    stock = f"  type: redis\n  connection_string: {address.hostname}:{address.port}\n"
    assert own in yaml.read_text(), "the benchmark's feature_store.yaml has changed"
    yaml.write_text(yaml.read_text().replace(own, stock))
    store = open_store(job.settings.model_copy(update={"feature_repo": repo}))
    values = {
        a.feature: rows.features[:, at].astype(np.int64 if a.dtype == "int64" else np.float64)
        for at, a in enumerate(view.aggregates)
    }
    times = pd.to_datetime(rows.feature_time_us, unit="us", utc=True)
    frame = pd.DataFrame({view.join_key: rows.keys, **values, "event_timestamp": times})

    def write() -> None:
        with quiet_feast():
            store.write_to_online_store(view.name, frame)

    return write


def _hashes(client: Any) -> dict[bytes, dict[bytes, bytes]]:
    keys = [key for key in client.scan_iter(count=10_000) if not key.startswith(b"millstream:")]
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.hgetall(key)
        return dict(zip(keys, pipeline.execute(), strict=True))


def differences(ours: dict[bytes, Any], theirs: dict[bytes, Any], rows: int) -> list[str]:
    """Return in words how what both sides left in Redis differs."""
    sides = zip(SIDES.values(), (ours, theirs), strict=True)
    wrong = [f"{name}: {len(found):,} of {rows:,} rows" for name, found in sides if len(found) != rows]
    different = sum(1 for key in ours.keys() & theirs.keys() if ours[key] != theirs[key])
    return wrong + [f"{different:,} rows differ from Feast's"] * (different > 0)


def wrong_reads(job: Job, view: View, rows: ViewRows, count: int = _READ) -> list[str]:
    """Return what Feast's ``get_online_features`` reads otherwise than it was written."""
    at = np.unique(np.linspace(0, len(rows.keys) - 1, count).astype(int))
    names = [a.feature for a in view.aggregates]
    with quiet_feast():
        answer = (
            open_store(job.settings)
            .get_online_features(
                [f"{view.name}:{name}" for name in names],
                [{view.join_key: key} for key in rows.keys[at].tolist()],
            )
            .to_dict()
        )
    different = sum(answer[name] != rows.features[at, column].tolist() for column, name in enumerate(names))
    return [f"{different} features of {view.name} are not read by Feast as they were written"] * (different > 0)


def view_method(plan: BenchPlan) -> list[str]:
    """Say how."""
    return [
        f"Writing: the same {plan.view_rows:,} rows of distinct keys and six features to the same, emptied Valkey, in "
        f"turn; the median of {plan.view_rounds} rounds. Ours: handed to the view writer until none waits, each row "
        "compared with the stored one's time by Valkey. Feast's: a data frame to write_to_online_store with Feast's "
        "own Redis store. CPU of this process and of Valkey per row.",
        "Staleness: the whole path, a worker per stage, at steady rates; 50 events a second, of customers and "
        "terminals that occur once in that time, are looked for by raw reads of their row's time, every 5 ms or so, "
        "from the moment each was due to be published; the first second left out. Feast's get_online_features "
        "takes the time stated besides on top.",
        "Answers: every field of every hash equals Feast's, byte for byte (Feast's writer adds the key to each row as "
        "one more feature, which is never read); 200 rows, and 100 of those looked for, read through Feast.",
    ]


def view_tables(figures: dict[str, Any]) -> list[Table]:
    """Return the figures as tables."""
    rows = [
        (
            words,
            number(figures[name]["rows_per_s"]),
            number(figures[name]["client_us_per_row"], 1),
            number(figures[name]["server_us_per_row"], 1),
        )
        for name, words in SIDES.items()
    ]
    rows.append(("ratio", f"{figures['ratio']:.1f}", "", ""))
    stale = [
        (
            f"{each['view']}, {each['rate']:,}/s",
            *(number(each[f"{percentile}_ms"], 1) for percentile in ("p50", "p95", "p99")),
            f"{each['found']:,} of {each['probes']:,}",
        )
        for each in figures["staleness"]["views"]
    ]
    read_ms, memory = figures["staleness"]["feast_read_ms"], memory_text(figures["staleness"]["memory"])
    return [
        Table("Writing the online view", ("", "rows/s", "client us per row", "server us per row"), rows),
        Table(
            f"Event to readable (read through Feast: {number(read_ms, 1)} ms; MB per worker, peak / steady: {memory})",
            ("", "p50 ms", "p95 ms", "p99 ms", "found"),
            stale,
        ),
    ]
