"""``millstream features``: features as declared, applied and served."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from millstream.cli.screen import print_rows, progress
from millstream.cli.seed_command import seed
from millstream.errors import Misconfigured
from millstream.settings import Settings, load_settings

if TYPE_CHECKING:
    from millstream.core.declaration import Declaration

JsonOption = Annotated[bool, typer.Option("--json", help="For scripts.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    features = typer.Typer(help="Features: apply, show, get, rebuild, seed, forget, log.", no_args_is_help=True)
    for command in (apply, show, get, rebuild, seed, forget, log):
        features.command()(command)
    app.add_typer(features, name="features")


def apply() -> None:
    """Apply the feature repo to its registry; safe to repeat."""
    from millstream.adapters.feast import repo as feature_repo
    from millstream.adapters.feast.compiled_repo import forget
    from millstream.app.runnable import assemble_runnable

    console = Console()
    with console.status("applying the feature repo"):
        settings = load_settings()
        forget(settings)
        declaration = assemble_runnable(settings).declaration
        feature_repo.apply(settings)
    console.print(f"project {declaration.project}: {len(declaration.service.features)} features applied")


def show(as_json: JsonOption = False) -> None:
    """Show what the engine computes from the feature repo."""
    from millstream.app.runnable import assemble_runnable

    console = Console()
    settings = load_settings()
    with console.status("compiling the feature repo"):
        assembly = assemble_runnable(settings)
    declaration, stages = assembly.declaration, assembly.topology.names
    rows = described(declaration)
    if as_json:
        found = {"project": declaration.project, "topic": declaration.topic, "stages": stages, "features": rows}
        typer.echo(json.dumps(found, indent=2))
        return
    shown = [{name.replace("_", " "): value for name, value in row.items()} for row in rows]
    print_rows(console, shown, f"{declaration.project}: features from topic {declaration.topic}")
    console.print(
        f"without a model: {declaration.service.baseline}; decision from {declaration.service.threshold}",
        soft_wrap=True,
        highlight=False,
    )
    console.print(f"stages: {', '.join(stages)}", soft_wrap=True, highlight=False)
    _say_what_answers(console, settings, declaration)


def _say_what_answers(console: Console, settings: Settings, declaration: Declaration) -> None:
    """Check whether the promoted model fits the declaration, if Kafka can be reached."""
    from millstream.adapters.embedded import endpoints
    from millstream.app.champion import champion_fit

    kafka, _ = endpoints.status(settings)
    if kafka.embedded and kafka.pid is None:
        return
    fit = champion_fit(endpoints.resolve(settings, redis=False).kafka, declaration)
    if fit.refused is not None:
        console.print(f"{fit.refused}; until then {fit.found}", style="yellow", markup=False, soft_wrap=True)
    else:
        console.print(fit.found, highlight=False)


def described(declaration: Declaration) -> list[dict[str, str]]:
    """Return one row per feature: its column, type, meaning, entity key, and the service that reads it."""
    read = dict(declaration.service.features)

    def row(column: str, dtype: str, what: str, key: str) -> dict[str, str]:
        service = declaration.service.name if column in read else ""
        return {"feature": column, "type": dtype, "what": what, "key": key, "read_by": service}

    rows = []
    for view in declaration.views:
        for column, each in zip(view.columns, view.aggregates, strict=True):
            window = str(dt.timedelta(milliseconds=each.window_ms)).removesuffix(", 0:00:00")
            what = f"{each.function} of {each.column} over {window}"
            rows.append(row(column, each.dtype, what, view.join_key))
    for on_demand in declaration.on_demand:
        what = f"computed from {', '.join(on_demand.inputs)}"
        rows += [row(f"{on_demand.name}__{name}", dtype, what, "") for name, dtype in on_demand.outputs]
    for batch in declaration.batch:
        key = ", ".join(name for name, _ in batch.join_keys)
        rows += [row(f"{batch.name}__{name}", dtype, "materialised", key) for name, dtype in batch.features]
    return rows


def get(
    keys: Annotated[
        list[str],
        typer.Argument(metavar="KEY=VALUE...", help="Join keys and their values, of one entity or of one of each."),
    ],
    as_json: JsonOption = False,
) -> None:
    """Read online features of an entity, or of one of each, as any Feast client does."""
    from millstream.adapters.feast.repo import load_declaration
    from millstream.app.online_features import read_online

    settings = load_settings()
    console = Console()
    with console.status("reading online features"):
        declaration = load_declaration(settings)
        row = entity_row(declaration, keys)
        values = {column: cells[0] for column, cells in read_online(settings, declaration, [row]).items()}
    if as_json:
        typer.echo(json.dumps({**row, **values}, default=str))
        return
    table = Table(title=", ".join(f"{key}={value}" for key, value in row.items()))
    table.add_column("feature")
    table.add_column("value", justify="right")
    for column, value in values.items():
        table.add_row(column, "[dim]null[/]" if value is None else str(value))
    console.print(table)


def entity_row(declaration: Declaration, keys: list[str]) -> dict[str, int | str]:
    """Return ``KEY=VALUE`` arguments as an entity row, each value of its key's type.

    Raises
    ------
    Misconfigured
        Naming the argument that is wrong and what is allowed.
    """
    from millstream.app.online_features import join_keys

    kinds = join_keys(declaration)
    row: dict[str, int | str] = {}
    for each in keys:
        name, equals, text = each.partition("=")
        if not equals or name not in kinds:
            raise Misconfigured(f"{each!r} is not KEY=VALUE with one of these keys: {', '.join(sorted(kinds))}")
        if kinds[name] == "int64" and not re.fullmatch(r"-?\d+", text):
            raise Misconfigured(f"{each!r}: {name} is a whole number")
        row[name] = int(text) if kinds[name] == "int64" else text
    return row


def rebuild() -> None:
    """Write every online row again from the stages' committed state, while workers run or not."""
    from millstream.app.assembly import assemble
    from millstream.app.rebuilding import rebuild_view

    console = Console()
    with console.status("compiling the feature repo"):
        assembly = assemble(load_settings())
    with progress(console, transient=False) as bars:
        task = bars.add_task("online rows", total=None)

        def show_progress(words: str, done: int, total: int) -> None:
            bars.update(task, description=words, completed=done, total=total)

        written = rebuild_view(assembly, show_progress)
    console.print(f"{written} rows written; all others were there, or newer ones")


def forget(
    after: Annotated[str, typer.Option(help="Event time, e.g. 2026-12-01T00:00:00Z: later events are removed.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove events after a time from the windows, after a clock was ahead; all stages must be stopped.

    Other events of their keys stay. Then start the stages, and redrive the events that were late because of them:
    millstream dead-letters redrive --reason late
    """
    from millstream.app.assembly import assemble
    from millstream.app.forgetting import described, forget_after
    from millstream.cli.dead_letters import moment_ms

    console = Console()
    with console.status("recovering the windows"):
        done = forget_after(assemble(load_settings()), moment_ms("--after", after), dry_run)
    if as_json:
        typer.echo(json.dumps([{"stage": each.stage, "events": each.events, "keys": each.keys} for each in done]))
        return
    print_rows(console, described(done), "would be taken out" if dry_run else "taken out")


def log(
    until_end: Annotated[bool, typer.Option("--until-end", help="Stop at the end of the topic.")] = False,
    every_s: Annotated[float, typer.Option(min=0.1, help="Seconds between files; each makes some per view.")] = 300.0,
) -> None:
    """Write served features as Parquet below the state directory, where the repo's batch sources read them."""
    from millstream.app.assembly import assemble
    from millstream.app.feature_log import keep

    console = Console()
    with console.status("compiling the feature repo"):
        assembly = assemble(load_settings())
    with console.status("reading scored events") as status:
        written = keep(assembly, until_end, every_s, lambda count: status.update(f"{count:,} scored events kept"))
    console.print(f"{written:,} scored events kept in {assembly.settings.state_dir / 'offline'}")
