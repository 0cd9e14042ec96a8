"""``millstream parity``: compare served features with those that Feast computes and reads."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from millstream.settings import load_settings

if TYPE_CHECKING:
    from millstream.app.parity_result import Comparison, Parity


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(parity)


def parity(
    sample: Annotated[int, typer.Option(min=1, help="How many of the newest scored events.")] = 2000,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compare served features with Feast's point-in-time join and online rows, exactly; exit 1 if any differ.

    The join reads the offline log, which `millstream features log` writes.
    """
    from millstream.app.assembly import assemble
    from millstream.app.parity_check import check_parity

    console = Console()
    with console.status("compiling the feature repo") as status:
        found = check_parity(assemble(load_settings()), sample, status.update)
    if as_json:
        typer.echo(json.dumps({"holds": found.holds, "mismatches": found.mismatches, **dataclasses.asdict(found)}))
    else:
        show(console, found)
    raise typer.Exit(0 if found.holds else 1)


def show(console: Console, found: Parity) -> None:
    """Print the table, then what differs and what was not compared."""
    keyed = {each.feature: each for each in found.online}
    table = Table("feature", box=None, padding=(0, 2, 0, 0), title=f"the newest {found.events:,} events")
    for name in ("recomputed", "online", "largest"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in found.historical:
        online = keyed.get(each.feature)
        gaps = [side.largest for side in (each, online) if side is not None and side.largest is not None]
        table.add_row(
            escape(each.feature), _share(each), _share(online) if online else "", f"{max(gaps):.3g}" if gaps else ""
        )
    console.print(table)
    for title, side in (("recomputed", found.historical), ("online", found.online)):
        for each in side:
            if each.mismatches:
                line = f"{title}, {each.feature}: {each.mismatches:,} of {each.compared:,} differ, e.g. {each.example}"
                console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    for count, words in (
        (found.behind, "online rows are missing or older than what was served: `millstream features rebuild`"),
        (found.ahead, "online rows were newer than the sample by the time they were read: not compared"),
        (
            found.disordered,
            "keys' newest events came out of order, so that their rows hold a later one's: not compared",
        ),
        (found.unlogged, "of the newest events are not in the offline log yet: older ones were recomputed instead"),
    ):
        if count:
            console.print(f"{count:,} {words}", markup=False, highlight=False, soft_wrap=True)
    if found.left_out:
        console.print(f"not recomputed: {', '.join(found.left_out)}", markup=False, highlight=False, soft_wrap=True)
    if found.holds:
        console.print(
            "[green]0 mismatches[/]: served features are those that Feast computes and reads", highlight=False
        )
    else:
        console.print(f"[red]{found.mismatches:,} mismatches[/]", highlight=False)


def _share(side: Comparison) -> str:
    return f"{side.mismatches:,} of {side.compared:,}"
