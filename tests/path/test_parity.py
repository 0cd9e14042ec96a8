"""`millstream parity` on real servers: nothing differs on a true stream, and one changed value is found and named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
import typer
from confluent_kafka import Producer
from typer.testing import CliRunner

from cards import TRANSACTIONS, events
from millstream.adapters.embedded import endpoints as servers
from millstream.adapters.feast.codec import ViewCodec
from millstream.app.assembly import Assembly
from millstream.app.feature_log import keep
from millstream.app.setup import initialise
from millstream.cli import parity
from millstream.core.avro.encode import RecordWriter
from millstream.core.text import as_text
from millstream.errors import Misconfigured
from millstream.ports import ViewRows
from millstream.settings import Settings, load_settings
from millstream.topology import SCORED
from running import Workers, committed, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

EVENTS = 1_500


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    made = load_settings({}, state_dir=tmp_path_factory.mktemp("parity"), partitions=2)
    servers.start(made, print)
    yield made
    servers.stop(made)


@pytest.fixture(scope="module")
def assembly(settings: Settings) -> Assembly:
    return initialise(settings, print)


@pytest.fixture(scope="module")
def scored(settings: Settings, assembly: Assembly) -> Settings:
    """A stream, disorder included, went through a worker, which left."""
    batch = events(EVENTS, seed=3, customers=40)
    kafka = servers.resolve(settings).kafka
    producer = Producer({**kafka, "enable.idempotence": True, "partitioner": "murmur2_random"})
    keys, values = as_text(batch.columns["customer_id"]), RecordWriter(TRANSACTIONS.schema).encode(batch)
    workers = Workers(settings.state_dir.resolve())
    workers.start("parity")
    try:
        # A few hours at a time: a partition that is handled first runs ahead of the other, and terminals' events
        # come out of order by as much.
        for start in range(0, EVENTS, 30):
            for key, value in zip(keys[start : start + 30], values[start : start + 30], strict=True):
                producer.produce("transactions", value, key)
            assert producer.flush(30) == 0
            wait_until(lambda wanted=start + 30: len(committed(kafka, SCORED)) >= wanted, 90, workers)
        assert workers.stop("parity") == 0
    finally:
        workers.end()
    return settings


@pytest.fixture(scope="module")
def logged(scored: Settings, assembly: Assembly) -> Settings:
    assert keep(assembly, until_end=True, every_s=300, on_progress=lambda _count: None) == EVENTS
    return scored


def ask(settings: Settings, *options: str) -> tuple[int, dict[str, Any]]:
    """Run the command; return its exit code and what it printed as JSON."""
    app = typer.Typer()
    app.callback()(lambda: None)
    parity.register(app)
    environment = {"MILLSTREAM_STATE_DIR": str(settings.state_dir)}
    result = CliRunner().invoke(app, ["parity", "--json", *options], env=environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, json.loads(result.stdout.splitlines()[-1])


def differing(found: dict[str, Any], side: str) -> dict[str, dict[str, Any]]:
    return {each["feature"]: each for each in found[side] if each["mismatches"]}


def test_what_is_missing_is_said(settings: Settings, assembly: Assembly) -> None:
    with pytest.raises(Misconfigured, match=r"nothing was scored yet.*millstream run"):
        ask(settings)


def test_an_empty_offline_log_is_said(scored: Settings) -> None:
    with pytest.raises(Misconfigured, match=r"holds nothing of customer_activity.*features log --until-end"):
        ask(scored)


def test_nothing_differs_on_a_true_stream(logged: Settings, assembly: Assembly) -> None:
    code, found = ask(logged)
    assert (code, found["mismatches"], found["behind"], found["ahead"], found["unlogged"]) == (0, 0, 0, 0, 0)
    features = [column for column, _ in assembly.declaration.service.features]
    assert sorted(each["feature"] for each in found["historical"]) == sorted(features)
    assert {each["compared"] for each in found["historical"]} == {EVENTS}
    # Every key, 40 customers and up to 80 terminals, but for those whose newest event came out of order.
    compared = {each["feature"].partition("__")[0]: each["compared"] for each in found["online"]}
    assert sum(compared.values()) + found["disordered"] >= 110
    assert found["disordered"] < 40
    _, few = ask(logged, "--sample", "10")
    assert {each["compared"] for each in few["historical"]} == {10}


def test_one_changed_value_of_the_offline_log_is_named(logged: Settings) -> None:
    name = "terminal_mean_amount_7d"
    path: Path = sorted((logged.state_dir / "offline" / "terminal_activity").glob("*/*.parquet"))[-1]
    before = pq.ParquetFile(path).read()
    changed = before[name].to_pylist()
    changed[0] += 0.25
    at = before.column_names.index(name)
    pq.write_table(before.set_column(at, before.schema.field(name), pa.array(changed)), path)
    try:
        code, found = ask(logged)
    finally:
        pq.write_table(before, path)
    assert code == 1
    wrong = differing(found, "historical")
    assert list(wrong) == [f"terminal_activity__{name}"]
    (only,) = wrong.values()
    assert only["mismatches"] == 1
    assert only["largest"] == pytest.approx(0.25)
    assert only["example"].startswith("transaction_id=")
    assert differing(found, "online") == {}


def test_one_changed_or_lost_online_row_is_named(logged: Settings, assembly: Assembly) -> None:
    view = assembly.declaration.views[0]
    codec = ViewCodec(assembly.declaration.project, view)
    _, sound = ask(logged)
    count = sound["online"][0]["compared"]
    for customer in range(40):
        client = redis.Redis.from_url(servers.resolve(logged).redis_url)
        (row,) = codec.entries(_row(view.name, customer, len(view.aggregates)))
        key, entries = row
        kept = client.hgetall(key)
        field = next(name for name in entries if not name.startswith(b"_ts"))
        client.hset(key, field, b" \x85\x01")  # an integer nobody served: 133
        try:
            code, found = ask(logged)
            wrong = differing(found, "online")
            if not wrong:  # this customer's newest event came out of order and is not compared
                continue
            assert code == 1
            assert list(wrong) == [view.columns[0]]
            (only,) = wrong.values()
            assert (only["mismatches"], only["compared"]) == (1, count)
            assert only["example"].startswith(f"customer_id={customer}: served ")
            assert only["example"].endswith("Feast gives 133")
            client.delete(key)
            code, found = ask(logged)
            assert (code, found["behind"]) == (1, 1)
        finally:
            client.hset(key, mapping=kept)
            client.close()
        return
    raise AssertionError("no customer was compared")


def _row(view: str, customer: int, width: int) -> ViewRows:
    import numpy as np

    return ViewRows(view, np.array([customer]), np.ones((1, width)), np.array([1]))
