"""Workers, broker, Redis and models are broken on purpose under a stream: every invariant holds, or is told."""

from __future__ import annotations

import io
import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fastavro
import pytest
from confluent_kafka import Producer
from rich.console import Console

from millstream.adapters.feast.repo import open_store
from millstream.errors import Stop
from millstream.runtime.recovery import MARKER_KEY
from millstream_lab.chaos.drive import drive
from millstream_lab.chaos.fault_context import FaultContext
from millstream_lab.chaos.faults import FAULTS, KILLS
from millstream_lab.chaos.plan import ChaosPlan
from millstream_lab.chaos.run import ChaosRun
from millstream_lab.chaos.stream import START_MS
from running import committed

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

SEED = 20_181_101
STEP_MS = 20_000
DAY_MS = 86_400_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HEADER_BYTES = 10  # of Avro's single-object encoding, and
FRAMED_BYTES = 5  # of a schema registry's
DEEDS = (
    "kill -9 between produce and commit",
    "Redis flushed",
    "SIGSTOP beyond the session",
    "kill -9 in recovery",
    "broker kill -9",
)


def test_nothing_is_lost_doubled_or_changed_whatever_breaks(tmp_path: Path) -> None:
    looked: list[int] = []

    def after(run: ChaosRun) -> None:
        looked.append(recomputed(run))
        planted(run)

    plan = ChaosPlan({**KILLS, **FAULTS}, DEEDS, SEED, rate=100, step_ms=STEP_MS, workers=2)
    verdict = drive(plan, tmp_path / "chaos", Console(width=160), len(DEEDS), after=after)
    assert {name: wrong for name, wrong in verdict.findings.items() if wrong} == {}
    assert [deed.fault for deed in verdict.deeds] == list(DEEDS)
    assert looked[0] > 1_000
    assert verdict.outcomes["predictions"] == verdict.published["sound"] > 2_000
    assert verdict.exits["killed by signal 9"] >= 4, "two a kill: to arm the worker, and at the moment wanted"
    assert verdict.exits["exit 0"] == 2


def recomputed(run: ChaosRun) -> int:
    """Compare what Feast reads with a recomputation from the published bytes alone: nothing of ours but the schema.

    Returns
    -------
    int
        How many values were compared.
    """
    events = published_events(run)
    store, compared = open_store(run.settings), 0
    for entity in ("customer", "terminal"):
        by_key: dict[int, list[tuple[int, float]]] = {}
        for event in events:
            by_key.setdefault(event[f"{entity}_id"], []).append((event["event_time_ms"], event["amount"]))
        keys = sorted(by_key)
        for days in (1, 7, 30):
            count, mean = (f"{entity}_{function}_amount_{days}d" for function in ("count", "mean"))
            online = store.get_online_features(
                [f"{entity}_activity:{name}" for name in (count, mean)], [{f"{entity}_id": key} for key in keys]
            ).to_dict()
            for row, key in enumerate(keys):
                newest = max(time_ms for time_ms, _ in by_key[key])
                inside = [eur for time_ms, eur in by_key[key] if newest - days * DAY_MS < time_ms <= newest]
                assert online[count][row] == len(inside)
                assert online[mean][row] == pytest.approx(math.fsum(inside) / len(inside), abs=1e-9)
                compared += 2
    return compared


def published_events(run: ChaosRun) -> list[dict[str, Any]]:
    """Return the sound events in the event topic, each once, in any order."""
    schema = fastavro.parse_schema(json.loads(run.assembly.contract.schema.to_json()))
    events: dict[int, dict[str, Any]] = {}
    for message in committed(run.kafka, "transactions"):
        value = message.value() or b""
        body = io.BytesIO(value[HEADER_BYTES if value[:1] == b"\xc3" else FRAMED_BYTES :])
        try:
            event: Any = fastavro.schemaless_reader(body, schema)
        except (EOFError, IndexError):
            continue  # cut short
        event["event_time_ms"] = (event["event_time_ms"] - EPOCH) // timedelta(milliseconds=1)
        if event["amount"] >= 0 and event["event_time_ms"] > START_MS - DAY_MS:
            events[event["transaction_id"]] = event
    assert len(events) == run.stream.kinds["sound"]
    return list(events.values())


def planted(run: ChaosRun) -> None:
    """Change one value in Redis and one row of state behind everybody's back: both are told, and nothing else."""
    change_online_value(run)
    change_state_row(run)
    found = run.check_state()
    (online,) = found["online features equal"]
    assert "online, should be" in online
    (state,) = found["state equal, no replay"]
    assert "differs" in state


def change_online_value(run: ChaosRun) -> None:
    import redis

    client: Any = redis.Redis.from_url(run.cluster.valkey_server.url)
    rows: dict[bytes, dict[bytes, bytes]] = {key: client.hgetall(key) for key in sorted(client.scan_iter(_type="HASH"))}
    first, *others = [key for key, row in rows.items() if sum(not name.startswith(b"_ts") for name in row) > 3]
    for name, value in rows[first].items():
        for other in others:
            found = rows[other].get(name, value)
            if not name.startswith(b"_ts") and found != value:
                client.hset(first, name, found)
                return
    raise AssertionError("no value to change")


def change_state_row(run: ChaosRun) -> None:
    topic = run.assembly.topology.stages[0].changelog
    key, value, partition = next(
        (each.key(), value, partition)
        for each in reversed(committed(run.kafka, topic))
        if each.key() != MARKER_KEY and (value := each.value()) and (partition := each.partition()) is not None
    )
    producer = Producer(run.kafka)
    producer.produce(topic, value[:-1] + bytes([value[-1] ^ 1]), key, partition)
    assert producer.flush(30) == 0


def kill_between_flush_and_commit(context: FaultContext) -> str:
    """Leave in order, start again, and die once the scores are written and the offsets are not."""
    cluster, target = context.cluster, context.target()
    cluster.stop(target)
    known = cluster.killed(target)
    cluster.add(target, crash="before-commit@transactions.terminal:5")
    for _ in range(240):
        if cluster.killed(target) > known:
            return target
        context.wait(0.25, 0.25)
    raise Stop("the worker did not come by")


def test_at_least_once_is_told_from_exactly_once_by_what_is_doubled_alone(tmp_path: Path) -> None:
    fault = "kill -9 between produce and commit"
    plan = ChaosPlan(
        {fault: kill_between_flush_and_commit}, [fault], SEED, 200, STEP_MS, workers=1, guarantee="at_least_once"
    )
    verdict = drive(plan, tmp_path / "chaos", Console(width=160), 1)
    told = {name: wrong for name, wrong in verdict.findings.items() if wrong}
    assert set(told) == {"doubled"}, told
    assert any("answer of transactions.terminal" in sentence for sentence in told["doubled"])
