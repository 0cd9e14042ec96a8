"""``millstream agents``: the stages that ``agents.py`` declares, and the commands of its app."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from millstream.cli.screen import print_rows
from millstream.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add the commands."""
    agents = typer.Typer(help="The project's own stages: list, run a command of their app.", no_args_is_help=True)
    agents.command("list")(list_agents)
    agents.command("command", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(command)
    app.add_typer(agents, name="agents")


def list_agents() -> None:
    """List the agents of agents.py: what each reads, and the topics and tables that the app declares."""
    from millstream.app.assembly import assemble

    assembly, console = assemble(load_settings()), Console()
    if assembly.agents is None:
        console.print("the feature repo has no agents.py; infra/docs/agents.md shows how to declare agents")
        return
    rows = [
        {"agent": plan.name, "reads": plan.input, "state": plan.changelog, "group": assembly.topology.group(plan.name)}
        for plan in assembly.topology.agents
    ]
    print_rows(console, rows, "agents")
    console.print(f"topics: {', '.join(sorted(assembly.agents.topics_by_name)) or 'none'}")
    console.print(f"tables: {', '.join(sorted(assembly.agents.tables_by_name)) or 'none'}")


def command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A function that agents.py declares with @app.command().")],
) -> None:
    """Run a command of the app; arguments and options after its name are passed on."""
    from faust.cli.base import cli

    from millstream.app.agents import load_app
    from millstream.errors import Misconfigured

    app = load_app(load_settings())
    if app is None or name not in app.commands:
        known = ", ".join(app.commands) if app is not None and app.commands else "none"
        raise Misconfigured(f"agents.py declares no command {name!r}; there are: {known}")
    sys.exit(cli.main(args=[name, *context.args], prog_name="millstream agents command", app=app))
