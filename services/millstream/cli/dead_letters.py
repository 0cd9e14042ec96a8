"""``millstream dead-letters``: list rejected records, and publish them again once the cause is fixed."""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from millstream.cli.screen import print_rows, progress
from millstream.errors import Misconfigured
from millstream.settings import load_settings

if TYPE_CHECKING:
    from millstream.adapters.kafka.dead_letters import DeadLetter, Selection
    from millstream.app.dead_letter_admin import DeadLetterAdmin

Reason = Annotated[str | None, typer.Option(help="Only this reason, e.g. undecodable or range.")]
OfTopic = Annotated[
    str | None, typer.Option(help="Only records of this topic, by its plain name or the one on the cluster.")
]
Stage = Annotated[str | None, typer.Option(help="Only those rejected by this stage.")]
Since = Annotated[str | None, typer.Option(help="Only those rejected since: 30m, 12h, 7d, or an ISO 8601 time (UTC).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        no_args_is_help=True, help="Dead letters, the records that stages rejected: list, show, summary, redrive."
    )
    group.command("list")(list_command)
    group.command("show")(show)
    group.command("summary")(summary)
    group.command("redrive")(redrive_command)
    app.add_typer(group, name="dead-letters")


def since_ms(text: str | None, now_ms: int) -> int | None:
    """Return the moment an option names, milliseconds since the epoch.

    Raises
    ------
    BadParameter
        It is neither a span nor a time.
    """
    if text is None:
        return None
    units = {"m": "minutes", "h": "hours", "d": "days"}
    if text[:-1].isdecimal() and text[-1] in units:
        return now_ms - timedelta(**{units[text[-1]]: int(text[:-1])}) // timedelta(milliseconds=1)
    return moment_ms("--since", text, "30m, 12h, 7d or an ISO 8601 time")


def moment_ms(option: str, text: str, allowed: str = "an ISO 8601 time, such as 2026-12-01T00:00:00Z") -> int:
    """Return an ISO 8601 time as milliseconds since the epoch; without a zone it is UTC.

    Raises
    ------
    BadParameter
        It is no time.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text}: must be {allowed}") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def list_command(
    reason: Reason = None,
    topic: OfTopic = None,
    stage: Stage = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, help="Show so many of the newest.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the newest last."""
    desk, console = _desk()
    found = sorted(desk.letters(_selection(reason, topic, stage, since)), key=lambda letter: letter.failed_at_ms)
    shown = found[-limit:]
    done = desk.redriven()
    if as_json:
        for letter in shown:
            row = {name: value for name, value in asdict(letter).items() if name not in {"key", "value"}}
            row["whole_sha256"] = letter.whole_sha256.hex()
            typer.echo(json.dumps({**row, "redriven": letter.id in done}))
        return
    if not shown:
        console.print("no dead letters" if reason is topic is stage is since is None else "no such dead letters")
        return
    rows = [
        {
            "id": letter.id,
            "reason": letter.reason,
            "field": letter.field,
            "when (UTC)": _time(letter.failed_at_ms),
            "redriven": "yes" if letter.id in done else "",
            "detail": letter.detail,
        }
        for letter in shown
    ]
    print_rows(console, rows)
    console.print(f"{len(shown):,} of {len(found):,}; `millstream dead-letters show ID` shows all of one")


def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="topic-partition-offset, as `list` shows it.")],
    as_json: AsJson = False,
) -> None:
    """Show all of one dead letter: reason, original bytes, and what they decode to."""
    from millstream.adapters.kafka.dead_letters import Selection
    from millstream.adapters.kafka.explain_record import explain_record, hexdump

    desk, console = _desk()
    letter = next(iter(desk.letters(Selection(ids=[letter_id]))), None)
    if letter is None:
        raise Misconfigured(f"there is no dead letter {letter_id!r}; `millstream dead-letters list` shows their ids")
    what, fields = explain_record(letter.value, desk.resolve)
    sent_back = letter.id in desk.redriven()
    if as_json:
        original: dict[str, str | None] = {name: _base64(getattr(letter, name)) for name in ("key", "value")}
        original["whole_sha256"] = letter.whole_sha256.hex()
        typer.echo(
            json.dumps(
                {**asdict(letter), **original, "what": what, "fields": fields, "redriven": sent_back}, default=str
            )
        )
        return
    for name in ("id", "stage", "reason", "field", "detail"):
        console.print(f"{name:<12} {getattr(letter, name)}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{'received':<12} {_time(letter.received_at_ms)}", highlight=False)
    console.print(f"{'rejected':<12} {_time(letter.failed_at_ms)}", highlight=False)
    console.print(f"{'redriven':<12} {'yes' if sent_back else 'no'}", highlight=False)
    if letter.whole_sha256:
        console.print(
            "\nToo large for a dead letter: key and value are truncated here; redrive reads the record from its topic.",
            highlight=False,
        )
    for name, data in (("key", letter.key), ("value", letter.value)):
        console.print(f"\n{name}: {'null' if data is None else f'{len(data)} bytes'}", highlight=False)
        if data:
            console.print(hexdump(data), markup=False, highlight=False, soft_wrap=True)
    console.print(f"\nvalue is: {what}", markup=False, highlight=False, soft_wrap=True)
    for name, value in fields.items():
        console.print(f"  {name} = {value!r}", markup=False, highlight=False, soft_wrap=True)


def summary(since: Since = None, as_json: AsJson = False) -> None:
    """Count dead letters by topic and reason."""
    desk, console = _desk()
    found = list(desk.letters(_selection(None, None, None, since)))
    done = desk.redriven()
    _print_counts(console, found, done, as_json=as_json)


def redrive_command(
    reason: Reason = None,
    topic: OfTopic = None,
    stage: Stage = None,
    since: Since = None,
    ids: Annotated[list[str] | None, typer.Option("--id", help="Only this one; repeatable.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that were not redriven yet.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Print what would be published; publish nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Publish the original records of dead letters to their topics again, byte for byte, each exactly once."""
    if everything == any((reason, topic, stage, since, ids)):
        raise typer.BadParameter("select some: --reason, --topic, --stage, --since or --id, or else --all")
    desk, console = _desk()
    selection = _selection(reason, topic, stage, since, ids or [])
    if dry_run:
        plan = desk.plan(selection)
    else:
        with progress(console) as bars:
            bar = bars.add_task("sending back", total=None)
            plan = desk.redrive(selection, lambda done, total: bars.update(bar, completed=done, total=total))
    if as_json:
        counts = {
            "sent": len(plan.sent),
            "already": plan.already,
            "no_topic": len(plan.homeless),
            "gone": len(plan.gone),
            "dry_run": dry_run,
        }
        typer.echo(json.dumps(counts))
        return
    verb = "would be sent" if dry_run else "sent"
    for (name, why), count in sorted(Counter((letter.topic, letter.reason) for letter in plan.sent).items()):
        console.print(f"{count:,} {verb} back to {name} ({why})", markup=False, highlight=False)
    console.print(f"{len(plan.sent):,} {verb} back, {plan.already:,} were already", highlight=False)
    if plan.sent and not dry_run:
        console.print(
            "Stages take them as new records. One that fails again is a new dead letter, so fix the cause first: "
            "`millstream dead-letters summary` shows what is left.",
            highlight=False,
            soft_wrap=True,
        )
    for name, count in sorted(Counter(letter.topic for letter in plan.homeless).items()):
        console.print(f"{count:,} stay: there is no topic {name} any more", markup=False, highlight=False)
    for letter in plan.gone:
        console.print(
            f"{letter.id} stays: too large for a dead letter, and {letter.topic} no longer holds the original",
            markup=False,
            highlight=False,
        )


def _desk() -> tuple[DeadLetterAdmin, Console]:
    from millstream.app.dead_letter_admin import DeadLetterAdmin

    warnings = Console(stderr=True)
    return DeadLetterAdmin(
        load_settings(), lambda text: warnings.print(f"not a dead letter: {text}", markup=False)
    ), Console()


def _selection(
    reason: str | None, topic: str | None, stage: str | None, since: str | None, ids: Iterable[str] = ()
) -> Selection:
    from millstream.adapters.kafka.dead_letters import Selection
    from millstream.adapters.kafka.topic_names import plain_name

    topic = None if topic is None else plain_name(load_settings(), topic)
    return Selection(reason, topic, stage, since_ms(since, time.time_ns() // 1_000_000), frozenset(ids))


def _print_counts(console: Console, found: list[DeadLetter], done: set[str], *, as_json: bool) -> None:
    counts = Counter((letter.topic, letter.reason) for letter in found)
    sent = Counter((letter.topic, letter.reason) for letter in found if letter.id in done)
    if as_json:
        rows: list[dict[str, Any]] = [
            {"topic": topic, "reason": reason, "count": count, "redriven": sent[topic, reason]}
            for (topic, reason), count in sorted(counts.items())
        ]
        typer.echo(json.dumps(rows))
        return
    if not found:
        console.print("no dead letters")
        return
    table = Table("topic", "reason", "not redriven", "redriven")
    for (topic, reason), count in sorted(counts.items()):
        table.add_row(escape(topic), escape(reason), f"{count - sent[topic, reason]:,}", f"{sent[topic, reason]:,}")
    console.print(table)
    waiting = len(found) - sent.total()
    console.print(
        f"{len(found):,} dead letters; {waiting:,} can be published again with `millstream dead-letters redrive`, "
        "once the cause is fixed. One that fails again is a new dead letter."
        if waiting
        else f"{len(found):,} dead letters, all redriven",
        highlight=False,
        soft_wrap=True,
    )


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S") if at_ms >= 0 else "unknown"


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()
