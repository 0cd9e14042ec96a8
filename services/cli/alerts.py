"""``millstream alerts``: what is wrong, in full if wanted, and what somebody does about it."""

from __future__ import annotations

import getpass
import hashlib
import json
import math
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer
from rich.console import Console
from rich.table import Table

from services.cli.screen import humane, print_rows
from services.errors import Misconfigured, Retry
from services.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.adapters.alert_topic import AlertTopic
    from services.core.drift.actions import Action

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
NoteOption = Annotated[str, typer.Option(help="Why, in a sentence.")]
ByOption = Annotated[str | None, typer.Option(help="Who; default: you.")]
_SHOWN = (
    "id",
    "event",
    "severity",
    "kind",
    "feature",
    "subjects",
    "monitor",
    "statistic",
    "threshold",
    "opened",
    "state",
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    alerts = typer.Typer(help="Alerts: list, follow, show, acknowledge, silence, hand on.", invoke_without_command=True)
    alerts.callback()(list_alerts)
    for each in (show, ack, silence, unsilence, forward):
        alerts.command()(each)
    app.add_typer(alerts, name="alerts")


def list_alerts(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Incidents that have ended as well.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new alerts until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List open incidents, the newest word on each."""
    if context.invoked_subcommand is not None:
        return
    topic, console = _topic(), Console()
    actions, now_ms = topic.actions(), _now_ms()
    rows = [row for row in topic.standing() if everything or row["event"] != "close"]
    if as_json:
        for row in rows:
            typer.echo(_json(_with_actions(row, actions, now_ms)))
    elif rows:
        print_rows(console, [_brief(_with_actions(row, actions, now_ms)) for row in rows])
    else:
        console.print("nothing is open" if not everything else "there were no alerts yet")
    if follow:
        for told in topic.follow(None):
            if told is not None and as_json:
                typer.echo(_json(told))
            elif told is not None:
                print_rows(console, [_brief(_with_actions(told, topic.actions(), _now_ms()))])


def show(
    alert_id: Annotated[str, typer.Argument(metavar="ID", help="Or its beginning.")], as_json: JsonOption = False
) -> None:
    """Show one incident in full: every alert of it that is retained, every subject, and what was done about it."""
    topic, console = _topic(), Console()
    history = _of(topic.history(), alert_id)
    last = _with_actions(history[-1], topic.actions(), _now_ms())
    if as_json:
        typer.echo(_json({**last, "subjects": json.loads(last["subjects"]), "history": history}))
        return
    plain = {
        name: humane(name, value)
        for name, value in last.items()
        if name not in {"subjects", "acknowledged", "silenced"}
    }
    for title, state in (("acknowledged", last["acknowledged"]), ("silenced", last["silenced"])):
        plain[title] = f"by {state['by']}: {state['note']}" if state else ""
    table = Table(title=f"{last['kind']} incident {last['id']}", show_header=False)
    for name, value in plain.items():
        if value:
            table.add_row(name, value)
    console.print(table)
    wanted = ("feature", "monitor", "statistic", "threshold", "importance", "shift")
    subjects = [{name: humane(name, row[name]) for name in wanted} for row in json.loads(last["subjects"])]
    print_rows(console, subjects, "subjects")
    told = ("at_ms", "event", "reason", "severity", "subject_count", "statistic", "threshold", "suppressed")
    print_rows(console, [{name: humane(name, row[name]) for name in told} for row in history], "told")


def ack(
    alert_id: Annotated[str, typer.Argument(metavar="ID", help="Or its beginning.")],
    note: NoteOption = "",
    by: ByOption = None,
) -> None:
    """Say that you work on an incident; everybody sees it."""
    topic = _topic()
    meant = _of(topic.standing(), alert_id)[-1]["id"]
    topic.act(_action("acknowledge", meant, "", "", 0, by, note))
    Console().print(f"incident {meant} is acknowledged")


def silence(
    alert_id: Annotated[str, typer.Option("--id", help="One incident.")] = "",
    kind: Annotated[str, typer.Option(help="All of a kind: data, score, concept, quality, operations.")] = "",
    feature: Annotated[str, typer.Option(help="All that are led by this feature or column.")] = "",
    span: Annotated[str, typer.Option("--for", help="How long, e.g. 12h or 7d.")] = "1d",
    note: NoteOption = "",
    by: ByOption = None,
) -> None:
    """Tell nobody of some alerts for a while; they stay on the topic, and on the list as silenced."""
    from services.core.drift.alert import Kind
    from services.core.drift.declared import parse_span_ms

    if kind and kind not in get_args(Kind):
        raise typer.BadParameter(f"there is no kind {kind!r}; there are: {', '.join(get_args(Kind))}")
    topic = _topic()
    meant = _of(topic.standing(), alert_id)[-1]["id"] if alert_id else ""
    try:
        action = _action("silence", meant, kind, feature, _now_ms() + parse_span_ms(span), by, note)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    topic.act(action)
    until = humane("until_ms", action.until_ms)
    Console().print(
        f"silence [bold]{action.id}[/] holds until {until} UTC; end it with `millstream alerts unsilence {action.id}`"
    )


def unsilence(action_id: Annotated[str, typer.Argument(metavar="ID", help="Of the silence.")]) -> None:
    """End a silence."""
    topic = _topic()
    if action_id not in {each.id for each in topic.actions() if each.action == "silence"}:
        raise Misconfigured(f"there is no silence {action_id!r}; `millstream alerts --json` shows those that hold")
    topic.take_back(action_id)
    Console().print(f"silence {action_id} is over")


def forward(
    url: Annotated[str, typer.Argument(help="Where to, e.g. https://example.org/hook or http://127.0.0.1:9093.")],
    form: Annotated[str, typer.Option("--as", help="webhook or alertmanager.")] = "webhook",
    group: Annotated[
        str, typer.Option(help="Consumer group that remembers what was handed on.")
    ] = "millstream.forward",
    once: Annotated[bool, typer.Option("--once", help="Hand on what there is, then leave.")] = False,
) -> None:
    """Hand alerts on over HTTP, each at least once, silenced ones not; goes on until Ctrl-C."""
    from services.adapters.alert_sinks import Form, post_alert
    from services.core.drift.actions import silenced_by

    forms: dict[str, Form] = {each: each for each in get_args(Form)}
    if form not in forms:
        raise typer.BadParameter(f"--as takes {' or '.join(forms)}, not {form!r}")
    topic, console, handed, idle = _topic(), Console(stderr=True), 0, 0
    for alert in topic.follow(f"{group}.{hashlib.sha256(url.encode()).hexdigest()[:8]}", from_start=True):
        if alert is None:
            idle += 1
            if once and idle > 10:
                break
            continue
        idle = 0
        if silenced_by(alert, topic.actions(), _now_ms()) is None:
            _patiently(lambda alert=alert: post_alert(forms[form], url, alert), console)
            handed += 1
    console.print(f"{handed} alerts handed on to {url}")


def _patiently(hand_on: Any, console: Console) -> None:
    """Try until it works: an alert that cannot be handed on now must not be passed over."""
    wait_s = 1.0
    while True:
        try:
            hand_on()
            return
        except Retry as error:
            console.print(f"[yellow]{error}; trying again in {wait_s:g} s[/]")
            time.sleep(wait_s)
            wait_s = min(60.0, 2 * wait_s)


def _topic() -> AlertTopic:
    from services.adapters.alert_topic import AlertTopic
    from services.adapters.contracts import load_all
    from services.adapters.endpoints import resolve
    from services.adapters.schema_registry import connect
    from services.adapters.schema_topic import SchemaResolver, read_schemas
    from services.adapters.topics import partition_counts
    from services.core.avro.decode import RecordReader
    from services.topology import ALERT_ACTIONS, ALERTS

    settings = load_settings()
    kafka = resolve(settings).kafka
    if not {ALERTS, ALERT_ACTIONS} <= partition_counts(kafka, [ALERTS, ALERT_ACTIONS]).keys():
        raise Misconfigured("there are no topics for alerts yet; create the topology's with `millstream init`")
    contracts = load_all(settings)
    known = [contract.schema for contract in contracts.values()]
    resolver = SchemaResolver(known, lambda: read_schemas(kafka), connect(settings))
    alerts, actions = contracts[ALERTS].schema, contracts[ALERT_ACTIONS].schema
    return AlertTopic(kafka, RecordReader(alerts, resolver), RecordReader(actions, resolver), actions)


def _of(rows: list[dict[str, Any]], beginning: str) -> list[dict[str, Any]]:
    found = [row for row in rows if row["id"].startswith(beginning)]
    if len({row["id"] for row in found}) != 1:
        many = "no incident has" if not found else "several incidents have"
        raise Misconfigured(f"{many} an id that begins with {beginning!r}; `millstream alerts --all` lists them")
    return found


def _action(
    action: Literal["acknowledge", "silence"],
    alert_id: str,
    kind: str,
    feature: str,
    until_ms: int,
    by: str | None,
    note: str,
) -> Action:
    from services.core.drift.actions import Action

    now_ms, who = _now_ms(), by or getpass.getuser()
    made = hashlib.sha256(f"{action} {alert_id} {kind} {feature} {who} {now_ms}".encode()).hexdigest()[:12]
    return Action(made, action, alert_id, kind, feature, until_ms, who, note, now_ms)


def _with_actions(row: Mapping[str, Any], actions: list[Action], now_ms: int) -> dict[str, Any]:
    from dataclasses import asdict

    from services.core.drift.actions import acknowledged_by, silenced_by

    taken, hushed = acknowledged_by(row, actions), silenced_by(row, actions, now_ms)
    return {**row, "acknowledged": asdict(taken) if taken else None, "silenced": asdict(hushed) if hushed else None}


def _brief(row: Mapping[str, Any]) -> dict[str, str]:
    state = (
        "silenced" if row["silenced"] else f"acknowledged by {row['acknowledged']['by']}" if row["acknowledged"] else ""
    )
    values = {
        **row,
        "id": row["id"][:8],
        "feature": row["feature"] or row["model"],
        "subjects": row["subject_count"],
        "opened": humane("opened_at_ms", row["opened_at_ms"]),
        "state": state,
    }
    return {name: humane(name, values[name]) for name in _SHOWN}


def _json(row: Mapping[str, Any]) -> str:
    # Infinity is no JSON; a statistic without bound is told as null.
    sound = {name: None if isinstance(each, float) and not math.isfinite(each) else each for name, each in row.items()}
    return json.dumps(sound, ensure_ascii=False)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
