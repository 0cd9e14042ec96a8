"""``millstream models``: list and show model versions, promote and roll back."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from millstream.cli.online_model import online
from millstream.cli.screen import humane, print_rows
from millstream.errors import Misconfigured, Refused
from millstream.settings import Settings, load_settings

if TYPE_CHECKING:
    pass

NameOption = Annotated[str | None, typer.Option("--name", help="Model; default: the feature service's.")]
JsonOption = Annotated[bool, typer.Option("--json", help="For scripts.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    models = typer.Typer(help="Trained models: list, show, promote, roll back; the online model.", no_args_is_help=True)
    models.command("list")(list_models)
    models.command()(show)
    models.command()(promote)
    models.command()(rollback)
    models.command()(online)
    app.add_typer(models, name="models")


def metric_title(name: str, group: str, groups_a_day: float | None = None) -> str:
    """Return a metric's name for people; precision@k has how many there are, where k are never reached."""
    if name.startswith("card_precision_at_"):
        k = name.rpartition("_")[2]
        fewer = groups_a_day is not None and groups_a_day < int(k)
        of = f", of {groups_a_day:.3g} a day: at most {groups_a_day / int(k):.2g}" if fewer and groups_a_day else ""
        return f"precision@{k} per day by {group}{of}"
    return {"auc": "AUC", "log_loss": "log-loss", "brier": "Brier score"}.get(name, name.replace("_", " "))


def list_models(name: NameOption = None, as_json: JsonOption = False) -> None:
    """List versions with their metrics, and which one is champion."""
    from millstream.adapters.models.registry import open_registry

    settings = load_settings()
    name = _name(settings, name)
    registry = open_registry(settings)
    rows, previous = registry.versions(name), registry.previous(name)
    if as_json:
        listed = [{"version": version, "champion": champion, "metrics": dict(m)} for version, m, champion in rows]
        typer.echo(json.dumps({"model": name, "previous": previous, "versions": listed}))
        return
    console = Console()
    if not rows:
        console.print(f"There is no model {name!r} yet; make one with `millstream train`.")
        return
    names = sorted({metric for _, metrics, _ in rows for metric in metrics})
    shown = []
    for version, metrics, champion in rows:
        mark = "champion" if champion else "previous" if version == previous else ""
        values = {each: humane(each, metrics.get(each)) for each in names}
        shown.append({"version": str(version), "state": mark, **values})
    print_rows(console, shown, f"model {name}")


def show(version: int, name: NameOption = None, as_json: JsonOption = False) -> None:
    """Show a version's manifest: features, training data, metrics."""
    from millstream.adapters.models.registry import open_registry
    from millstream.core.models.manifest import Manifest

    settings = load_settings()
    name = _name(settings, name)
    found = open_registry(settings).load(name, version)
    if found is None:
        raise Refused(f"model {name!r} has no version {version}; see `millstream models list`")
    if as_json:
        typer.echo(found.manifest)
        return
    manifest = Manifest.from_json(found.manifest)
    training = manifest.training
    console = Console()
    console.print(f"[bold]{name}[/] version {version}, {len(found.body):,} bytes, sha256 {found.sha256[:16]}…")
    console.print(f"reads feature service {manifest.service!r}: {len(manifest.features)} features")
    console.print(f"trained on events {_day(training.from_ms)} to {_day(training.to_ms)} with labels known by "
                  f"{_day(training.as_of_ms)}; made {_day(manifest.created_at_ms)}, "
                  f"commit {manifest.git_commit or 'unknown'}")  # fmt: skip
    for part, count in training.rows.items():
        console.print(f"  {part}: {count:,} events, {training.positives.get(part, 0):,} positive")
    for metric, value in manifest.metrics.items():
        console.print(f"  {metric_title(metric, 'key')}: {value:.4f}")
    console.print(f"threshold {'of the service' if manifest.threshold is None else f'{manifest.threshold:.4f}'}")
    table = Table("feature", "dtype", "mean", "std", "null share", title="in the training part (edges: --json)")
    for feature, dtype in manifest.features:
        profile = manifest.profile.get(feature)
        numbers = ("", "", "") if profile is None else (profile.mean, profile.std, profile.null_share)
        table.add_row(feature, dtype, *(f"{number:.4g}" if isinstance(number, float) else "" for number in numbers))
    console.print(table)


def promote(version: int, name: NameOption = None) -> None:
    """Make a version champion: every scorer serves it from its next micro-batch on."""
    settings = load_settings()
    _change(settings, name, version)


def rollback(name: NameOption = None) -> None:
    """Go back to the version that was champion before; a second rollback undoes the first."""
    settings = load_settings()
    _change(settings, name, None)


def _change(settings: Settings, name: str | None, version: int | None) -> None:
    from millstream.adapters.embedded.endpoints import resolve
    from millstream.adapters.feast.compiled_repo import compiled_repo
    from millstream.adapters.models.registry import open_registry
    from millstream.app.training import put_into_service

    kafka = resolve(settings, redis=False).kafka
    declaration = compiled_repo(settings).declaration
    name = name or declaration.service.name
    registry = open_registry(settings)
    if version is None:
        version = registry.previous(name)
        if version is None:
            raise Misconfigured(f"model {name!r} has no earlier champion to go back to; see `millstream models list`")
    put_into_service(registry, kafka, declaration, name, version)
    Console().print(f"model [bold]{name}[/] version [bold]{version}[/] is champion: scorers serve it from now on")


def _name(settings: Settings, name: str | None) -> str:
    if name is not None:
        return name
    from millstream.adapters.feast.compiled_repo import compiled_repo

    return compiled_repo(settings).declaration.service.name


def _day(stamp_ms: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(stamp_ms / 1000))
