"""``millstream consume``: read a topic as any subscriber does, decoded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from millstream.cli.screen import humane, print_rows
from millstream.settings import load_settings

if TYPE_CHECKING:
    from millstream.core.avro.schema import Schema, SchemaId


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(consume)


def consume(
    topic: Annotated[str, typer.Argument(help="e.g. predictions, scored, dead-letters, transactions.")],
    last: Annotated[int, typer.Option(min=1, help="How many of the newest records.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new ones until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show the newest committed records of a topic."""
    from millstream.adapters.embedded.endpoints import resolve
    from millstream.adapters.files.contracts import load_all
    from millstream.adapters.kafka.schema_topic import schema_resolver
    from millstream.adapters.kafka.topic_names import plain_name
    from millstream.app.newest import newest

    settings = load_settings()
    topic = plain_name(settings, topic)
    kafka = resolve(settings, redis=False).kafka
    known = [contract.schema for contract in load_all(settings).values()]
    resolver = schema_resolver(settings, kafka, known)
    console = Console()
    rows = [_decoded(message.value(), resolver) for _, message in newest(kafka, topic, last)]
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row, default=_jsonable))
    elif rows:
        every = dict.fromkeys(name for row in reversed(rows) for name in row)
        names = [name for name in every if not name.endswith(("manifest", "body"))]
        print_rows(console, [{name: humane(name, row.get(name)) for name in names} for row in rows], topic)
    else:
        console.print(f"{topic} has no records yet")
    if follow:
        for row in _follow(kafka, topic, resolver):
            typer.echo(json.dumps(row, default=_jsonable))


def _jsonable(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else str(value)


def _follow(
    kafka: Mapping[str, str], topic: str, resolve: Callable[[SchemaId], Schema | None]
) -> Iterator[dict[str, Any]]:
    import uuid

    from confluent_kafka import Consumer

    from millstream.adapters.kafka.client import PASSING, client_logger, raise_for
    from millstream.adapters.kafka.cluster import named

    consumer = Consumer(
        {
            **kafka,
            "group.id": f"millstream.consume.{uuid.uuid4().hex[:8]}",
            "enable.auto.commit": False,
            "auto.offset.reset": "latest",
            "isolation.level": "read_committed",
            "logger": client_logger,
        }
    )
    consumer.subscribe([named(kafka, topic)])
    try:
        while True:
            message = consumer.poll(0.5)
            if message is None:
                continue
            error = message.error()
            if error is None:
                yield _decoded(message.value(), resolve)
            elif error.code() not in PASSING:
                raise_for(error, f"reading {topic}")
    finally:
        consumer.close()


def _decoded(value: bytes | None, resolve: Callable[[SchemaId], Schema | None]) -> dict[str, Any]:
    """Return a record's fields, whatever its writer's schema; its bytes and the reason if they cannot be read."""
    from millstream.adapters.kafka.explain_record import explain_record

    if value is None:
        return {"tombstone": True}
    what, fields = explain_record(value, resolve)
    return fields or {"undecodable": value.hex(), "why": what}
