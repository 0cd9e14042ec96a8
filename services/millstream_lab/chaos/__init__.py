"""``millstream chaos``: break a real cluster on purpose, then prove that nothing was lost, doubled or changed."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from millstream_lab.chaos.poison import poison

chaos = typer.Typer(help="Break a cluster of its own on purpose, and check that nothing is lost or doubled.")
chaos.command()(poison)

Seed = Annotated[int | None, typer.Option(help="Chooses events, faults and moments; printed.")]
Keep = Annotated[Path | None, typer.Option(help="Work in this new directory and keep it.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the verdict here.")]
Rate = Annotated[int, typer.Option(min=1, help="Sound events a second.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(chaos, name="chaos")


@chaos.command()
def run(
    kills: Annotated[int, typer.Option(min=0, help="How often workers are killed -9, over all moments.")] = 200,
    times: Annotated[int, typer.Option(min=0, help="How often each other fault is done.")] = 5,
    only: Annotated[list[str] | None, typer.Option(help="Only faults whose name contains this; repeatable.")] = None,
    rate: Rate = 300,
    step_ms: Annotated[int, typer.Option(min=1, help="Event time between two events, milliseconds.")] = 5_000,
    workers: Annotated[int, typer.Option(min=1, help="Workers, all stages each.")] = 2,
    guarantee: Annotated[str, typer.Option(help="at_least_once shows that doubled answers are found.")] = (
        "exactly_once"
    ),
    seed: Seed = None,
    keep: Keep = None,
    json_file: Json = None,
) -> None:
    """Publish, inject faults, and check every invariant: an hour or more with the default options.

    A broker, a Valkey and workers of its own are started; nothing else is touched. The checker reads only topics and
    Redis, and compares with an undisturbed run over the same input. Exit code 1: an invariant is broken.
    """
    from millstream_lab.chaos import growth, small_disk
    from millstream_lab.chaos.drive import drive
    from millstream_lab.chaos.fault_injector import plan
    from millstream_lab.chaos.faults import DISK_FAULTS, FAULTS, KILLS
    from millstream_lab.chaos.plan import ChaosPlan
    from millstream_lab.chaos.report import as_json

    small_disk.enter()
    console = Console()
    if not small_disk.available():
        console.print("[yellow]no mount namespace to be had here: disks are not filled[/]")
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    others = {**FAULTS, **(DISK_FAULTS if small_disk.available() else {})}
    # All but one kind of kill take two: one to arm the worker and one at the moment wanted, which may not come.
    deeds = -(-kills * len(KILLS) // (2 * len(KILLS) - 1))
    deeds += deeds // 20
    counts = {name: deeds // len(KILLS) + (at < deeds % len(KILLS)) for at, name in enumerate(KILLS)}
    counts |= dict.fromkeys(others, times)
    wanted = {name: count for name, count in counts.items() if not only or any(part in name for part in only)}
    names = plan(wanted, seed)
    growths = times if not only or any(part in growth.NAME for part in only) else 0
    chosen = ChaosPlan({**KILLS, **others}, names, seed, rate, step_ms, workers, guarantee=guarantee, growths=growths)
    result = drive(chosen, keep, console, len(names) + growths)
    if json_file is not None:
        json_file.write_text(json.dumps(as_json(result, seed), indent=1) + "\n")
    if not result.sound:
        raise typer.Exit(1)


@chaos.command()
def soak(
    minutes: Annotated[float, typer.Option(min=1, help="How long.")] = 30,
    gap_s: Annotated[float, typer.Option(min=5, help="Seconds from one fault to the next.")] = 75,
    rate: Rate = 300,
    seed: Seed = None,
    keep: Keep = None,
    json_file: Json = None,
    png: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("soak.png"),
) -> None:
    """Run at a steady rate with a fault now and then, and draw what must stay flat.

    Memory, file descriptors, latency and the changelogs' size are sampled every five seconds; one of the two workers is
    never harmed, so that its memory can show a leak. The same invariants are checked in the end. Exit code 1: one of
    them is broken.
    """
    from millstream_lab.chaos.drive import drive
    from millstream_lab.chaos.faults import FAULTS, KILLS
    from millstream_lab.chaos.plan import ChaosPlan
    from millstream_lab.chaos.report import as_json
    from millstream_lab.chaos.soak import STEP_MS, Readings, draw, names_for, print_readings, readings_json

    console = Console()
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    plan = ChaosPlan(
        {**KILLS, **FAULTS}, names_for(minutes, gap_s, seed), seed, rate, STEP_MS, 2, frozenset({"worker-1"})
    )
    readings = Readings()
    result = drive(plan, keep, console, None, readings.watch)
    readings.close()
    draw(readings.taken, result.deeds, png)
    print_readings(readings.taken, console)
    console.print(f"drawn in {png}", highlight=False)
    if json_file is not None:
        report = {**as_json(result, seed), "readings": readings_json(readings.taken)}
        json_file.write_text(json.dumps(report, indent=1) + "\n")
    if not result.sound:
        raise typer.Exit(1)
