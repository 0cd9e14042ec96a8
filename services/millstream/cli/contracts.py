"""``millstream contracts``: list the contracts, and refuse breaking changes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from millstream.errors import MillstreamError, Misconfigured
from millstream.settings import Settings, load_settings

if TYPE_CHECKING:
    from millstream.adapters.files.contract_history import Version
    from millstream.core.avro.compatibility import Incompatibility, Mode
    from millstream.core.contracts import Contract

contracts = typer.Typer(name="contracts", help="Event contracts: list, show, check for breaking changes.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


@dataclass(frozen=True)
class Finding:
    """A breaking change of one topic against one version."""

    topic: str
    commit: str
    rule: str
    field: str
    detail: str


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(contracts)


@contracts.command("list")
def list_contracts(as_json: Json = False) -> None:
    """List the contracts, one per topic."""
    from millstream.adapters.files.contracts import load_all

    found = load_all(load_settings())
    rows = [
        {
            "topic": topic,
            "record": contract.schema.name,
            "owner": contract.owner,
            "key": contract.key,
            "event_id": contract.event_id,
            "event_time": contract.event_time,
            "fields": len(contract.schema.fields),
            "generation": contract.generation,
            "fingerprint": f"{contract.schema.fingerprint:016x}",
        }
        for topic, contract in found.items()
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    shown = ("topic", "owner", "key", "event_id", "event_time")
    table = Table(*(name.replace("_", " ") for name in shown))
    for row in rows:
        table.add_row(*(str(row[name]) for name in shown))
    Console().print(table)


@contracts.command("show")
def show(
    topic: Annotated[str, typer.Argument(help="Topic, by its plain name or the one on the cluster.")],
    as_json: Json = False,
) -> None:
    """Show what a topic's records hold: fields, units, constraints. With --json, their Avro schema.

    Of a topic that the engine derives, such as scored, examples and those between stages, this is the whole schema,
    features included.
    """
    from millstream.adapters.kafka.topic_names import plain_name

    settings = load_settings()
    contract = contract_of(settings, plain_name(settings, topic))
    if as_json:
        typer.echo(contract.schema.to_json())
        return
    from millstream.core.avro.logical_type import type_name

    console = Console()
    owner = f", owner {contract.owner}" if contract.owner else ", derived from the contracts and the feature repo"
    console.print(f"[bold]{topic}[/]  {contract.schema.name}{owner}\n{contract.doc}".rstrip(), highlight=False)
    table = Table(Column("field", overflow="fold"), "holds", "meaning")
    for item, constraint in zip(contract.schema.fields, contract.constraints, strict=True):
        private = item.attributes.get("pii", "none")
        holds = [
            type_name(item) + (" or null" if item.nullable else ""),
            *([str(item.attributes["unit"])] if "unit" in item.attributes else []),
            *(f"{name.replace('_', ' ')} {text}" for name, text in constraint.texts.items() if name != "finite"),
            *([f"personal data ({private})"] if private != "none" else []),
        ]
        table.add_row(item.name, ", ".join(holds), str(item.attributes.get("doc", "")))
    console.print(table)


def contract_of(settings: Settings, topic: str) -> Contract:
    """Return what a topic's records are: its contract, or the whole schema that the engine derives.

    Raises
    ------
    Misconfigured
        Naming the topics there are; or as `millstream.app.assembly.assemble`, where the schema is derived.
    """
    from millstream.adapters.files.contracts import load_all
    from millstream.core.contracts import Contract
    from millstream.topology import EXAMPLES, SCORED

    found = load_all(settings)
    if topic in found and topic not in {SCORED, EXAMPLES}:
        return found[topic]
    from millstream.app.assembly import assemble

    try:
        assembly = assemble(settings)
    except MillstreamError as error:
        if topic in found:
            raise Misconfigured(f"the records of {topic!r} follow from the feature repo: {error}") from error
        raise Misconfigured(f"there is no contract for topic {topic!r}; there are: {', '.join(found)}") from error
    derived = assembly.derived
    if topic in derived:
        return Contract.of(derived[topic])
    if topic in {each.name for each in assembly.topology.topics}:
        raise Misconfigured(
            f"{topic!r} holds the engine's own state; its records are no Avro and change without notice"
        )
    names = ", ".join(sorted({*found, *derived}))
    raise Misconfigured(f"there is no contract for topic {topic!r}; there are: {names}")


@contracts.command("check")
def check(
    against: Annotated[str, typer.Option(help="Git revision to compare with.")] = "HEAD",
    mode: Annotated[
        str, typer.Option(help="BACKWARD, FORWARD or FULL, each also with _TRANSITIVE.")
    ] = "BACKWARD_TRANSITIVE",
    as_json: Json = False,
) -> None:
    """Refuse breaking changes against git: exit code 1 and the rules broken.

    A transitive mode compares with every version reachable from the revision, the others with the one at it. A break
    is made on purpose by raising millstream.generation in the contract.
    """
    from millstream.adapters.files.contract_history import all_versions, versions_at
    from millstream.adapters.files.contracts import load_all, schemas_dir
    from millstream.core.avro.compatibility import MODES

    if mode not in MODES:
        raise typer.BadParameter(f"{mode!r} is none of {', '.join(MODES)}", param_hint="--mode")
    settings = load_settings()
    folder = schemas_dir(settings)
    present = load_all(settings)
    at_revision = versions_at(folder, against)
    versions = all_versions(folder, against) if mode.endswith("_TRANSITIVE") else at_revision
    findings = [
        Finding(
            version.topic, version.commit, "removed", "", "the contract is gone; retire the topic before its contract"
        )
        for version in at_revision
        if version.topic not in present
    ]
    shown = track(versions, "comparing", console=Console(stderr=True), transient=True, disable=as_json)
    for version in shown:
        if version.topic in present:
            found = compare(version, present[version.topic], cast("Mode", mode))
            findings += [Finding(version.topic, version.commit, b.rule, b.field, b.detail) for b in found]
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        _report(findings, len(present), len(versions), mode, against)
    if findings:
        raise typer.Exit(1)


def compare(version: Version, contract: Contract, mode: Mode) -> list[Incompatibility]:
    """Return what a contract breaks of an earlier version."""
    from millstream.core.avro.compatibility import Incompatibility, breaking_changes
    from millstream.core.avro.schema import SchemaError
    from millstream.core.contracts import Contract

    try:
        old = Contract.parse(version.text)
    except SchemaError as error:
        if contract.generation > 1:
            return []
        return [
            Incompatibility(
                "unreadable", "", f"this version is no contract ({error}); raise generation to leave it behind"
            )
        ]
    return breaking_changes(old, contract, mode)


def _report(findings: list[Finding], contracts_now: int, compared: int, mode: str, against: str) -> None:
    console = Console()
    if not findings:
        console.print(
            f"[green]{contracts_now} contracts break nothing[/]: {mode} against {compared} versions up to {against}"
        )
        return
    table = Table("topic", "against", "rule", "field", "what breaks")
    for finding in findings:
        table.add_row(finding.topic, finding.commit, finding.rule, finding.field, finding.detail)
    console.print(table)
    console.print(
        f"[bold red]{len(findings)} breaking changes[/] ({mode}). Give new fields a default, widen types and bounds "
        "only, rename through aliases; or raise millstream.generation to break on purpose."
    )
