"""``millstream alerts``: list and show incidents, acknowledge and silence them."""

from __future__ import annotations

import getpass
import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer
from rich.console import Console
from rich.table import Table

from millstream.app.alert_lookup import now_ms, of_id, open_topic, with_actions
from millstream.cli.alert_forward import forward
from millstream.cli.alert_rows import history_row, json_line, silence_row, standing_row
from millstream.cli.screen import humane, print_rows
from millstream.errors import Misconfigured
from millstream.settings import load_settings

if TYPE_CHECKING:
    from millstream.core.drift.actions import Action

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
NoteOption = Annotated[str, typer.Option(help="Why, in a sentence.")]
ByOption = Annotated[str | None, typer.Option(help="Who; default: you.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    alerts = typer.Typer(help="Alerts: list, follow, show, acknowledge, silence, forward.", invoke_without_command=True)
    alerts.callback()(list_alerts)
    for each in (show, ack, silence, unsilence, forward):
        alerts.command()(each)
    app.add_typer(alerts, name="alerts")


def list_alerts(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Closed incidents as well, and active silences.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Then new alerts, until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List open incidents, each as of its newest alert."""
    if context.invoked_subcommand is not None:
        return
    topic, console = open_topic(load_settings()), Console()
    actions, at_ms = topic.actions(), now_ms()
    rows = [row for row in topic.standing() if everything or row["event"] != "close"]
    if as_json:
        for row in rows:
            typer.echo(json_line(with_actions(row, actions, at_ms)))
    elif rows:
        print_rows(console, [standing_row(with_actions(row, actions, at_ms), everything) for row in rows])
    else:
        console.print("nothing is open" if not everything else "there are no alerts yet")
    if everything:
        _list_silences(actions, at_ms, console, as_json)
    if follow:
        for alert in topic.follow(None):
            if alert is not None and as_json:
                typer.echo(json_line(alert))
            elif alert is not None:
                print_rows(console, [standing_row(with_actions(alert, topic.actions(), now_ms()), everything)])


def _list_silences(actions: list[Action], at_ms: int, console: Console, as_json: bool) -> None:
    """List silences separately: one may concern no present alert."""
    silences = [each for each in actions if each.action == "silence" and each.until_ms > at_ms]
    if as_json:
        for each in silences:
            typer.echo(json_line(asdict(each)))
    elif silences:
        print_rows(console, [silence_row(each) for each in silences], "silences")


def show(
    alert_id: Annotated[str, typer.Argument(metavar="ID", help="Or its beginning.")], as_json: JsonOption = False
) -> None:
    """Show one incident in full: every alert of it that is retained, every subject, and the actions on it."""
    topic, console = open_topic(load_settings()), Console()
    history = of_id(topic.history(), alert_id)
    last = with_actions(history[-1], topic.actions(), now_ms())
    if as_json:
        typer.echo(json_line({**last, "subjects": json.loads(last["subjects"]), "history": history}))
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
    print_rows(console, [history_row(row) for row in history], "history")


def ack(
    alert_id: Annotated[str, typer.Argument(metavar="ID", help="Or its beginning.")],
    note: NoteOption = "",
    by: ByOption = None,
) -> None:
    """Acknowledge an incident: a record that others see."""
    topic = open_topic(load_settings())
    meant = of_id(topic.standing(), alert_id)[-1]["id"]
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
    """Silence some alerts for a while: they are not forwarded, and are listed as silenced."""
    from millstream.core.drift.alert import Kind
    from millstream.core.drift.declared import parse_span_ms

    if kind and kind not in get_args(Kind):
        raise typer.BadParameter(f"there is no kind {kind!r}; there are: {', '.join(get_args(Kind))}")
    topic = open_topic(load_settings())
    meant = of_id(topic.standing(), alert_id)[-1]["id"] if alert_id else ""
    try:
        action = _action("silence", meant, kind, feature, now_ms() + parse_span_ms(span), by, note)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    topic.act(action)
    until = humane("until_ms", action.until_ms)
    Console().print(
        f"silence [bold]{action.id}[/] holds until {until} UTC; end it with `millstream alerts unsilence {action.id}`"
    )
    if feature and not any(row["feature"] == feature for row in topic.history()):
        note_text = f"note: no alert was led by {feature!r} so far; the silence applies to later ones"
        Console().print(note_text, markup=False, soft_wrap=True)


def unsilence(action_id: Annotated[str, typer.Argument(metavar="ID", help="Of the silence.")]) -> None:
    """End a silence."""
    topic = open_topic(load_settings())
    if action_id not in {each.id for each in topic.actions() if each.action == "silence"}:
        raise Misconfigured(f"there is no silence {action_id!r}; `millstream alerts --all` lists the active ones")
    topic.take_back(action_id)
    Console().print(f"silence {action_id} is over")


def _action(
    action: Literal["acknowledge", "silence"],
    alert_id: str,
    kind: str,
    feature: str,
    until_ms: int,
    by: str | None,
    note: str,
) -> Action:
    from millstream.core.drift.actions import Action

    made_ms, who = now_ms(), by or getpass.getuser()
    made = hashlib.sha256(f"{action} {alert_id} {kind} {feature} {who} {made_ms}".encode()).hexdigest()[:12]
    return Action(made, action, alert_id, kind, feature, until_ms, who, note, made_ms)
