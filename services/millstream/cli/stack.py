"""``millstream up`` and ``millstream down``: the embedded Kafka and Valkey."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer
from rich.console import Console

from millstream.adapters.embedded import endpoints
from millstream.cli.screen import steps
from millstream.settings import load_settings

AsJson = Annotated[bool, typer.Option("--json", help="Print the endpoints as JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(up)
    app.command()(down)


def up(as_json: AsJson = False) -> None:
    """Start Kafka and Valkey, unless the settings name others, and wait until they serve. Safe to repeat."""
    settings = load_settings()
    console = Console(stderr=as_json)
    began = time.monotonic()
    with console.status("starting") as status:
        endpoints.start(settings, steps(console, status.update))
    servers = endpoints.status(settings)
    if as_json:
        typer.echo(json.dumps({s.name.lower(): {"address": s.address, "embedded": s.embedded} for s in servers}))
        return
    for server in servers:
        how = (
            f"embedded, pid {server.pid}" if server.embedded else "external, from the settings; see `millstream doctor`"
        )
        console.print(f"[green]✓[/] {server.name:7} {server.address}  [dim]({how})[/]", highlight=False)
    if any(server.embedded for server in servers):
        console.print(
            f"Ready after {time.monotonic() - began:.1f} s; data and logs are in {settings.state_dir}. "
            "They run until `millstream down`.",
            highlight=False,
        )


def down(
    wipe: Annotated[bool, typer.Option(help="Also delete the servers' data: all topics and online features.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before deleting.")] = False,
) -> None:
    """Stop the embedded servers; their data is kept unless --wipe is given."""
    settings = load_settings()
    console = Console()
    doomed = [settings.state_dir / name for name in endpoints.DATA if (settings.state_dir / name).exists()]
    if wipe and doomed and not yes:
        listed = "\n  ".join(str(path) for path in doomed)
        typer.confirm(f"Stop the servers and delete:\n  {listed}\nGo on?", abort=True)
    with console.status("stopping"):
        stopped = endpoints.stop(settings)
    for name in stopped:
        console.print(f"[green]✓[/] stopped the {name}")
    if not stopped:
        console.print(f"Nothing was running in {settings.state_dir}.", highlight=False)
    if wipe:
        for path in endpoints.wipe(settings):
            console.print(f"[green]✓[/] deleted {path}", highlight=False)
