"""Faults of what workers are given: the time of day, models, schemas, settings."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

from millstream.adapters.kafka.promotions import publish as promote
from millstream.app.worker_processes import run_command
from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.schema import Schema
from millstream.errors import Stop
from millstream_lab.bench.sides import own_environ
from millstream_lab.chaos.candidate_models import invalid
from millstream_lab.chaos.fault_context import FaultContext, awaited


def clock_step(context: FaultContext) -> str:
    """Step the wall clock of all workers, there and back."""
    seconds = context.random.choice([-86_400, -3_600, -5, 5, 3_600, 86_400])
    clock = context.cluster.clock
    seen = clock.with_suffix(".seen")
    seen.write_text("")
    clock.write_text(str(seconds))
    context.wait(3.0, 6.0)
    clock.write_text("0")
    count = seen.read_text().split().count(str(seconds))
    context.harm(count > 0)
    return f"{seconds:+} s and back, {count} workers saw it"


def bad_model(how: str) -> Callable[[FaultContext], str]:
    """Return the fault that promotes a model that must be refused."""

    def fault(context: FaultContext) -> str:
        context.bad_version += 1
        good, target = context.random.choice(context.good), context.target()
        promote(context.kafka, invalid(good, context.bad_version, how))
        context.wait(1.0, 2.0)
        context.cluster.kill(target)  # a start with nothing better on offer
        started = awaited(lambda: context.cluster.ready(target), 60)
        refusals = context.cluster.count_in_logs(f"model {good.name!r} version {context.bad_version} is refused")
        context.harm(started and refusals > 0)
        promote(context.kafka, good)
        return f"version {context.bad_version}, refused {refusals} times"

    return fault


def model_swap(context: FaultContext) -> str:
    """Promote one good model after another in mid-flight."""
    for turn in range(4):
        promote(context.kafka, context.good[turn % len(context.good)])
        context.wait(0.2, 1.0)
    return "four promotions"


def registry_down(context: FaultContext) -> str:
    """The schema registry fails while records with an id that is new to everybody arrive, and a worker starts."""
    registry = context.cluster.registry
    registry.status, registry.refused = 503, 0
    doc = f"variant {len(registry.texts)}"
    number = registry.add({"schema": variant(context.schema, doc), "schemaType": "AVRO"})
    context.stream.reframe(RecordWriter(context.schema, b"\0" + number.to_bytes(4, "big")))
    context.wait(1.0, 3.0)
    context.cluster.kill(context.target())
    context.wait(3.0, 8.0)
    registry.status = 200
    context.harm(registry.refused > 0)
    return f"new id {number}, {registry.refused} requests refused"


def variant(schema: Schema, doc: str) -> str:
    """Return the same schema with another doc, so that it is another text under another id."""
    return json.dumps({**json.loads(schema.to_json()), "doc": doc})


WRONG_CONFIGURATION = 78  # as in `millstream --help`
WRONG = (
    ({"MILLSTREAM_BATCH_RECORDS": "0"}, "MILLSTREAM_BATCH_RECORDS"),
    ({"MILLSTREAM_GUARANTEE": "twice"}, "MILLSTREAM_GUARANTEE"),
    ({"MILLSTREAM_FEATURE_REPO": "nowhere"}, "nowhere"),
    ({"MILLSTREAM_REDIS_URL": "nonsense"}, "MILLSTREAM_REDIS_URL"),
    ({"MILLSTREAM_SCHEMA_REGISTRY_URL": "ftp://x"}, "MILLSTREAM_SCHEMA_REGISTRY_URL"),
    ({"MILLSTREAM_KAFKA_SECURITY_PROTOCOL": "nonsense"}, "MILLSTREAM_KAFKA_SECURITY_PROTOCOL"),
    ({"MILLSTREAM_SCHEMAS_DIR": "nowhere"}, "nowhere"),
)


def wrong_configuration(context: FaultContext) -> str:
    """Start a worker with a wrong setting: it must leave at once, naming it."""
    environ, named = context.random.choice(WRONG)
    done = subprocess.run(
        run_command(),
        env={**own_environ(), **context.cluster.environ, "MILLSTREAM_WORKER_ID": "wrong", **environ},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    output = done.stdout + done.stderr
    if done.returncode != WRONG_CONFIGURATION or named not in output or "Traceback" in output:
        raise Stop(f"{environ}: left with {done.returncode} and did not name {named}:\n{output[-1500:]}")
    return f"{next(iter(environ))}: exit {done.returncode}"
