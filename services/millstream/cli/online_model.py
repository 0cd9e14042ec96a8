"""``millstream models online``: the online model's newest snapshot, as a scorer that starts now loads it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from millstream.cli.screen import humane, print_rows
from millstream.errors import Misconfigured, Refused
from millstream.settings import load_settings

if TYPE_CHECKING:
    from confluent_kafka import Message


def online(as_json: bool = typer.Option(False, "--json", help="For scripts.")) -> None:
    """Show the online model: examples learnt, prequential metrics, and its role."""
    from millstream.adapters.embedded.endpoints import resolve
    from millstream.adapters.kafka.key_follower import newest
    from millstream.adapters.models.river_header import Header
    from millstream.adapters.models.river_model import open_snapshot
    from millstream.app.assembly import assemble
    from millstream.core.prequential import Prequential
    from millstream.topology import SNAPSHOTS

    assembly = assemble(load_settings())
    if not assembly.declares_online_model:
        raise Misconfigured(f"no online model is declared: {assembly.online_model_file} is not there")
    declared, key, refused = assembly.online_model(), assembly.snapshot_key(), list[str]()

    def read(message: Message) -> tuple[Header, int, int] | None:
        try:
            header, models = open_snapshot(message.value() or b"", declared, key)
        except Refused as error:
            refused.append(f"{SNAPSHOTS}[0]@{message.offset()}: {error}")
            return None
        return header, len(models), message.timestamp()[1]

    found = newest(resolve(assembly.settings, redis=False).kafka, SNAPSHOTS, declared.name.encode(), read)
    role = assembly.policy.online_role
    metrics = {}
    if found is not None:
        metrics = {name: Prequential.of_state(state).figures() for name, state in found[0].metrics.items()}
    if as_json:
        header, models, published_at_ms = found or (None, 0, None)
        shown = {
            "model": declared.name,
            "version": header.examples if header else None,
            "published_at_ms": published_at_ms,
            "models": models,
            "metrics": metrics,
            "role": role,
            "refused": refused,
        }
        typer.echo(json.dumps(shown))
        return
    console = Console()
    for reason in refused:
        console.print(reason, style="red", markup=False)
    if found is None:
        console.print(
            f"There is no snapshot of online model {declared.name!r} yet: `millstream run learn` publishes them."
        )
        return
    header, models, published_at_ms = found
    console.print(f"online model [bold]{declared.name}[/] has learnt [bold]{header.examples:,}[/] examples by "
                  f"{humane('published_at_ms', published_at_ms)} and is {role}")  # fmt: skip
    if header.segment:
        console.print(f"{models} models, one for each of at most {header.max_segments} values of {header.segment}")
    rows = [
        {"before learning": name, **{each: humane(each, value) for each, value in figures.items()}}
        for name, figures in metrics.items()
        if figures
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    print_rows(console, [{name: row.get(name, "") for name in names} for row in rows])
