"""Commands whose modules are imported when the command is used, not when it is listed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True, slots=True)
class Listed:
    """A command as the list of commands shows it.

    Parameters
    ----------
    summary : str
        First sentence of its help.
    modules : tuple of str
        Modules whose ``register(app)`` adds the command, and then what others add to it.
    """

    summary: str
    modules: tuple[str, ...]


def register_modules(app: typer.Typer, modules: tuple[str, ...]) -> None:
    """Let modules add their commands."""
    for module in modules:
        importlib.import_module(module).register(app)


def lazy_group(commands: Mapping[str, Listed]) -> type[TyperGroup]:
    """Return the class of a group with these commands, by name, in their order."""

    class LazyGroup(TyperGroup):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            for name, listed in commands.items():
                self.commands[name] = TyperCommand(name, help=listed.summary)

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            name, command, rest = super().resolve_command(ctx, args)
            if name is not None and name in commands:
                app = typer.Typer(pretty_exceptions_enable=False)
                app.callback()(lambda: None)  # so that one command makes a group as well
                register_modules(app, commands[name].modules)
                command = typer.main.get_group(app).commands[name]
            return name, command, rest

    return LazyGroup
