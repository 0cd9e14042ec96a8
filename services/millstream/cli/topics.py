"""``millstream topics``: going on with topics that were recreated, and giving them more partitions."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

import typer
from rich.console import Console

from millstream.settings import load_settings

Names = Annotated[list[str] | None, typer.Argument(help="Topics; default: those that were deleted and created again.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="The topics of the stages: adopt, rescale.")
    group.command("rescale")(rescale_command)
    group.command("adopt")(adopt_command)
    app.add_typer(group, name="topics")


def adopt_command(names: Names = None) -> None:
    """Go on with topics that were deleted and created again; all stages must be stopped. Safe to repeat.

    Their logs are read from the beginning. Windows, ledger, models and monitors keep what they have of the earlier
    logs; a changelog that was recreated is emptied, and its stage rebuilds its state from its inputs.
    """
    from millstream.adapters.embedded.endpoints import resolve
    from millstream.adapters.kafka.topic_adoption import adopt
    from millstream.app.assembly import assemble

    settings = load_settings()
    assembly = assemble(settings)
    done = adopt(resolve(settings, redis=False).kafka, assembly.topology, names or (), settings.replication)
    console = Console()
    for each in done:
        how = (
            "state is rebuilt from its inputs"
            if each.rebuilt
            else f"read from its beginning on, as generation {each.generation}"
        )
        console.print(f"[green]✓[/] {each.topic}: {how}", highlight=False)
    if not done:
        console.print("Every topic is the one that was worked on before; there is nothing to adopt.")


def rescale_command(
    count: Annotated[
        int, typer.Argument(min=1, max=1024, help="Partitions of every keyed topic afterwards: more than now.")
    ],
    abandon: Annotated[
        bool,
        typer.Option("--abandon-cut-letters", help="Go on although dead letters of cut records lose their originals."),
    ] = False,
) -> None:
    """Give all keyed topics more partitions, and move records, state and offsets. Safe to repeat after a crash.

    Producers and stages must be stopped (SIGTERM), and everything read to the end. Partitions are only added; fewer
    are refused.
    """
    from millstream.adapters.embedded.endpoints import resolve
    from millstream.app.assembly import assemble
    from millstream.app.dead_letter_admin import DeadLetterAdmin
    from millstream.runtime.rescale.rescale import Rescale

    settings, console = load_settings(), Console()
    assembly = assemble(settings)

    def say(words: str) -> None:
        console.print(f"[green]✓[/] {words}", highlight=False)

    def truncated_dead_letters(topics: Collection[str]) -> list[str]:
        return [] if abandon else DeadLetterAdmin(settings, say).cut(topics)

    kafka = resolve(settings, redis=False).kafka
    Rescale(kafka, assembly.topology, count, settings.replication, say, truncated_dead_letters).run()
