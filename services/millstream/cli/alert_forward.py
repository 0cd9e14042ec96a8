"""``millstream alerts forward``: forward alerts over HTTP."""

from __future__ import annotations

import hashlib
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.console import Console

from millstream.app.alert_lookup import now_ms, open_topic
from millstream.errors import Retry
from millstream.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from millstream.core.drift.actions import Action

_TRIES_ONCE = 3


def forward(
    url: Annotated[str, typer.Argument(help="Where to, e.g. https://example.org/hook or http://127.0.0.1:9093.")],
    form: Annotated[str, typer.Option("--as", help="webhook or alertmanager.")] = "webhook",
    group: Annotated[
        str, typer.Option(help="Consumer group whose offsets record what was forwarded.")
    ] = "millstream.forward",
    once: Annotated[
        bool, typer.Option("--once", help="Forward the present alerts, then exit; exit code 75 if that fails.")
    ] = False,
    runbook_url: Annotated[
        str, typer.Option(help="Where you serve the runbook; alerts then link to their section of it as runbook_url.")
    ] = "",
) -> None:
    """Forward alerts over HTTP, each at least once, until Ctrl-C.

    Silenced ones are left out, except the end of an incident that the receiver may know of.
    """
    from millstream.adapters.reports.alert_sinks import Form, post_alert

    forms: dict[str, Form] = {each: each for each in get_args(Form)}
    if form not in forms:
        raise typer.BadParameter(f"--as takes {' or '.join(forms)}, not {form!r}")
    if runbook_url and not runbook_url.startswith(("http://", "https://")):
        raise typer.BadParameter(f"--runbook-url takes an http:// or https:// URL, not {runbook_url!r}")
    topic, console, handed, idle, withheld = open_topic(load_settings()), Console(stderr=True), 0, 0, Withheld()
    # Closed at once where handing on fails: the alert in hand is not committed, and comes again.
    with closing(topic.follow(f"{group}.{hashlib.sha256(url.encode()).hexdigest()[:8]}", from_start=True)) as alerts:
        for alert in alerts:
            if alert is None:
                idle += 1
                if once and idle > 10:
                    break
                continue
            idle = 0
            if withheld.passes(alert, topic.actions(), now_ms()):
                hand_on = partial(post_alert, forms[form], url, alert, now_ms(), runbook_url)
                try:
                    _patiently(hand_on, console, _TRIES_ONCE if once else None)
                except Retry as error:
                    gave_up = f"gave up after {_TRIES_ONCE} tries, alerts forwarded before: {handed}"
                    raise Retry(f"{error}; {gave_up}; the next run continues with this one") from error
                handed += 1
    console.print(f"{handed} alerts forwarded to {url}")


class Withheld:
    """The incidents of which nothing was forwarded, as far as this run has seen."""

    def __init__(self) -> None:
        self._ids: set[str] = set()

    def passes(self, alert: Mapping[str, Any], actions: list[Action], at_ms: int) -> bool:
        """Whether an alert must be forwarded: not if silenced, unless it closes an incident open at the receiver."""
        from millstream.core.drift.actions import silenced_by

        silenced, known = silenced_by(alert, actions, at_ms) is not None, alert["id"] not in self._ids
        if alert["event"] == "close":
            self._ids.discard(alert["id"])
            return known or not silenced
        if not silenced:
            self._ids.discard(alert["id"])
        elif alert["event"] == "open":
            self._ids.add(alert["id"])
        return not silenced


def _patiently(hand_on: Callable[[], None], console: Console, tries: int | None) -> None:
    """Try until it succeeds, `tries` times at most: no alert may be skipped."""
    wait_s, tried = 1.0, 0
    while True:
        try:
            hand_on()
            return
        except Retry as error:
            tried += 1
            if tried == tries:
                raise
            if tries is None:
                console.print(f"[yellow]{error}; trying again in {wait_s:g} s[/]")
            time.sleep(wait_s)
            wait_s = min(60.0, 2 * wait_s)
