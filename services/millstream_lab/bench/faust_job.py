"""The same job in stock Faust, as a Faust user would write it; run as ``python -m millstream_lab.bench.faust_job``.

Chosen by measurement, to Faust's advantage: micro-batches by ``take`` (one LightGBM call for many events instead of
one each), windows summed by slices of two plain lists, a Table that holds them, no standby, no web server, no leader
topic, Faust's Cython extensions. Guarantee: at least once. Parameters come as one JSON argument.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from bisect import bisect_right
from io import BytesIO
from typing import Any

import fastavro
import faust
import lightgbm
import numpy as np

from millstream_lab.bench.oracle import FEATURES, WINDOW_DAYS
from millstream_lab.bench.workload import DAY_MS

HORIZON_MS = WINDOW_DAYS[-1] * DAY_MS
OUTPUT_SCHEMA = {
    "type": "record",
    "name": "bench.Scored",
    "fields": [
        {"name": "transaction_id", "type": "long"},
        {"name": "customer_id", "type": "long"},
        {"name": "terminal_id", "type": "long"},
        {"name": "event_time_ms", "type": "long"},
        {"name": "amount", "type": "double"},
        *({"name": name, "type": "double"} for name in FEATURES),
        {"name": "score", "type": "double"},
    ],
}
_HEADER_BYTES = 10


def build(parameters: dict[str, Any]) -> faust.App:
    """Return the app.

    Parameters
    ----------
    parameters : dict
        ``bootstrap`` (host:port), ``input``, ``output``, ``partitions``, ``schema`` (Avro of the input), ``model`` (a
        file), ``state_dir``, ``take`` (most events in a micro-batch; 1 = event by event) and ``within_s``.
    """
    app = faust.App(
        parameters["app"],
        broker=f"kafka://{parameters['bootstrap']}",
        store="memory://",
        datadir=parameters["state_dir"],
        web_enabled=False,
        topic_disable_leader=True,
        topic_replication_factor=1,
        topic_partitions=parameters["partitions"],
        table_standby_replicas=0,
        consumer_auto_offset_reset="earliest",
        cython_optimizations=True,
    )
    raw: dict[str, Any] = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    transactions = app.topic(parameters["input"], partitions=parameters["partitions"], **raw)
    scored = app.topic(parameters["output"], partitions=parameters["partitions"], **raw)
    history = app.Table(
        "history",
        partitions=parameters["partitions"],
        key_type=int,
        value_type=list,
        default=list,
        use_partitioner=True,
    )
    reader = fastavro.parse_schema(json.loads(parameters["schema"]))
    writer = fastavro.parse_schema(OUTPUT_SCHEMA)
    header = b"\xc3\x01" + struct.pack(
        "<Q",
        int(fastavro.schema.fingerprint(fastavro.schema.to_parsing_canonical_form(OUTPUT_SCHEMA), "CRC-64-AVRO"), 16),
    )
    booster = lightgbm.Booster(model_file=parameters["model"])

    def featurize(value: bytes) -> tuple[dict[str, Any], list[float]]:
        """Decode one event, add it to its customer's history and return it with its features."""
        body = BytesIO(value)
        body.seek(_HEADER_BYTES)
        event: Any = fastavro.schemaless_reader(body, reader)
        event["event_time_ms"] = now_ms = int(event["event_time_ms"].timestamp() * 1000)
        known: Any = history[event["customer_id"]] or ([], [])
        times_ms, amounts = known
        at = bisect_right(times_ms, now_ms)
        times_ms.insert(at, now_ms)
        amounts.insert(at, event["amount"])
        gone = bisect_right(times_ms, times_ms[-1] - HORIZON_MS)
        del times_ms[:gone], amounts[:gone]
        history[event["customer_id"]] = [times_ms, amounts]
        end = bisect_right(times_ms, now_ms)
        features: list[float] = []
        for days in WINDOW_DAYS:
            start = bisect_right(times_ms, now_ms - days * DAY_MS)
            features += [float(end - start), sum(amounts[start:end]) / (end - start)]
        return event, features

    def encode(event: dict[str, Any], features: list[float], score: float) -> bytes:
        out = BytesIO()
        out.write(header)
        fastavro.schemaless_writer(out, writer, {**event, **dict(zip(FEATURES, features, strict=True)), "score": score})
        return out.getvalue()

    async def by_event(stream: Any) -> None:
        async for value in stream:
            event, features = featurize(value)
            scores: Any = booster.predict(np.array([features]), num_threads=1)
            score = float(scores[0])
            await scored.send(key=str(event["transaction_id"]).encode(), value=encode(event, features, score))

    async def by_take(stream: Any) -> None:
        async for values in stream.take(parameters["take"], within=parameters["within_s"]):
            rows = [featurize(value) for value in values]
            scores: Any = booster.predict(np.array([features for _event, features in rows]), num_threads=1)
            for (event, features), score in zip(rows, scores.tolist(), strict=True):
                await scored.send(key=str(event["transaction_id"]).encode(), value=encode(event, features, score))

    app.agent(transactions, name="score")(by_event if parameters["take"] == 1 else by_take)
    return app


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    assert os.environ.get("NO_CYTHON") is None, "Faust would run without its extensions"
    faust.Worker(build(given), loglevel="WARNING", quiet=True).execute_from_commandline()
