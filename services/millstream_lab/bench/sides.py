"""The two sides of the benchmark, each as what to start, what it reads and what it writes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
from confluent_kafka import Message
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from millstream.app.assembly import Assembly
from millstream.app.worker_processes import run_command
from millstream.core.avro.schema import Schema
from millstream.project_file import FOLDER_VARIABLE
from millstream.topology import SCORED
from millstream_lab.bench import faust_job

FEATURE_REPO = Path(__file__).parent / "feature_repo"
# Best of 1, 25, 50, 100, 200 and 1,000: above, Faust's producer buffer (100 messages) stalls it; below, CPU per event.
FAUST_TAKE = 50
FAUST_WITHIN_S = 0.01
_ENDPOINTS = ("KAFKA_", "REDIS_", "SCHEMA", "STATE_DIR", "FEATURE_REPO", "MLFLOW_", "WORKER_ID", "METRICS_")


@dataclass(frozen=True)
class Side:
    """One implementation of the job.

    Parameters
    ----------
    name, guarantee, how : str
        For the table.
    command : list of str
    environ : mapping
    input, output : str
        Topics.
    output_schema : parsed fastavro schema
    """

    name: str
    guarantee: str
    how: str
    command: list[str]
    environ: Mapping[str, str]
    input: str
    output: str
    output_schema: Any

    @staticmethod
    def event_of(message: Message) -> int:
        """Return the event id of an output message: its key."""
        return int(message.key() or b"-1")


def own_environ() -> dict[str, str]:
    """Return this process's environment without any endpoint of the operator's: the benchmark has its own broker.

    Nor is the project's file read, which may name one.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(tuple(f"MILLSTREAM_{part}" for part in _ENDPOINTS))
    }
    return {**kept, FOLDER_VARIABLE: ""}


@contextmanager
def own_environment() -> Iterator[None]:
    """Let `own_environ` be the environment of this process for a while, since settings are read from it."""
    kept, own = dict(os.environ), own_environ()
    os.environ.clear()
    os.environ.update(own)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def millstream_side(environ: Mapping[str, str], guarantee: str, assembly: Assembly) -> Side:
    """Return ours: ``millstream run`` of the one stage, online view and metrics included."""
    (plan,) = assembly.topology.stages
    return Side(
        "millstream",
        guarantee.replace("_", "-"),
        "millstream run, changelog, dead letters, predictions topic, online view and metrics on",
        run_command(plan.name),
        environ,
        plan.input,
        SCORED,
        fastavro.parse_schema(json.loads(plan.output_schema.to_json())),
    )


def faust_side(kafka: Mapping[str, str], state_dir: Path, schema: Schema, model_file: Path, partitions: int) -> Side:
    """Return stock Faust's; creates its topics.

    Raises
    ------
    KafkaException
        The topics cannot be created.
    """
    names = ("faust-transactions", "faust-scored")
    create_topics(kafka, names, partitions)
    parameters = {
        "app": "bench-faust",
        "bootstrap": kafka["bootstrap.servers"],
        "input": names[0],
        "output": names[1],
        "partitions": partitions,
        "schema": schema.to_json(),
        "model": str(model_file),
        "state_dir": str(state_dir / "faust"),
        "take": FAUST_TAKE,
        "within_s": FAUST_WITHIN_S,
    }
    return Side(
        "stock Faust",
        "at-least-once",
        f"one agent, Table in memory with changelog, take({FAUST_TAKE}, within={FAUST_WITHIN_S}), Cython, no web",
        [sys.executable, "-m", "millstream_lab.bench.faust_job", json.dumps(parameters)],
        own_environ(),
        *names,
        fastavro.parse_schema(faust_job.OUTPUT_SCHEMA),
    )


def create_topics(kafka: Mapping[str, str], names: tuple[str, ...], partitions: int) -> None:
    """Create plain topics."""
    admin = AdminClient(dict(kafka))  # held: it takes its requests along when it goes
    for future in admin.create_topics([NewTopic(name, partitions, 1) for name in names]).values():
        future.result(30)
