"""The ``millstream`` command: one module per group of commands, each with ``register(app)``.

Other packages add commands with an entry point of the group ``millstream.commands``, which is a mapping such as
`COMMANDS`; the lab (bench, chaos, evaluation) does.

Exit codes: 0 done; 1 a check found something; 2 wrong usage; 69 a server cannot be reached; 70 stopped by an error;
75 try again; 78 wrong configuration; 130 interrupted.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import entry_points

import typer
from rich.console import Console
from rich.text import Text

from millstream.cli.lazy_group import Listed, lazy_group, register_modules
from millstream.errors import MillstreamError, Misconfigured, Retry

_HERE = __name__
COMMANDS: Mapping[str, Listed] = {
    "new": Listed("Create a project: settings, features, contract, a test and a README.", (f"{_HERE}.new",)),
    "contracts": Listed("Event contracts: list, show, check for breaking changes.", (f"{_HERE}.contracts",)),
    "up": Listed(
        "Start Kafka and Valkey, unless the settings name others, and wait until they serve.", (f"{_HERE}.stack",)
    ),
    "down": Listed("Stop the embedded servers; their data is kept unless --wipe is given.", (f"{_HERE}.stack",)),
    "doctor": Listed("Check everything that Millstream needs; exit 1 if something is wrong.", (f"{_HERE}.doctor",)),
    "ingest": Listed("Publish a file's rows in order, as fast as Kafka takes them or at a pace.", (f"{_HERE}.ingest",)),
    "dead-letters": Listed(
        "Dead letters, the records that stages rejected: list, show, summary, redrive.", (f"{_HERE}.dead_letters",)
    ),
    "demo": Listed(
        "Start everything, train on April to July 2018, then score August onwards live, with labels seven days late.",
        (f"{_HERE}.demo",),
    ),
    "init": Listed("Create the topics, publish their schemas and apply the Feast repo.", (f"{_HERE}.run",)),
    "run": Listed("Run stages until SIGTERM or Ctrl-C.", (f"{_HERE}.run",)),
    "replay": Listed(
        "Replay history through the stages that run live; write features, scores and dead-letter records.",
        (f"{_HERE}.replay",),
    ),
    "train": Listed(
        "Train a model on history as it was known at the time, measure it, and register it.", (f"{_HERE}.train",)
    ),
    "models": Listed("Trained models: list, show, promote, roll back; the online model.", (f"{_HERE}.models",)),
    "alerts": Listed("Alerts: list, follow, show, acknowledge, silence, forward.", (f"{_HERE}.alerts",)),
    "drift": Listed("Drift: reference and current distributions, expected and realised metrics.", (f"{_HERE}.drift",)),
    "consume": Listed("Show the newest committed records of a topic.", (f"{_HERE}.consume",)),
    "features": Listed("Features: apply, show, get, rebuild, seed, forget, log.", (f"{_HERE}.features",)),
    "parity": Listed(
        "Compare served features with Feast's point-in-time join and online rows, exactly; exit 1 if any differ.",
        (f"{_HERE}.parity",),
    ),
    "quality": Listed(
        "Show the quality of each model's scores by day, with days that are not mature marked.", (f"{_HERE}.quality",)
    ),
    "labels": Listed("Show how complete the labels are, as last reported by the stage `join`.", (f"{_HERE}.labels",)),
    "agents": Listed("The project's own stages: list, run a command of their app.", (f"{_HERE}.agents",)),
    "topics": Listed("The topics of the stages: adopt, rescale.", (f"{_HERE}.topics",)),
}
"""The engine's commands; a test compares the summaries with the commands' own help."""
PLUGINS = "millstream.commands"
_ABOUT = "The streaming engine for a Feast feature repo."


def _root() -> None:
    """Events in, exact online features and scores out."""


def exit_code(error: MillstreamError) -> int:
    """Return the process exit code for an error, after sysexits.h."""
    if isinstance(error, Misconfigured):
        return 78
    return 75 if isinstance(error, Retry) else 70


def all_commands() -> dict[str, Listed]:
    """Return the engine's commands and those of other installed packages, by name."""
    found = dict(COMMANDS)
    for plugin in entry_points(group=PLUGINS):
        # The image of the workers is built without the lab, which its metadata still names.
        if importlib.util.find_spec(plugin.module.partition(".")[0]) is None:
            continue
        for name, more in plugin.load().items():
            known = found.get(name)
            found[name] = replace(known, modules=(*known.modules, *more.modules)) if known else more
    return found


def register_all(app: typer.Typer) -> None:
    """Add every command, with its module imported."""
    register_modules(app, tuple(dict.fromkeys(name for each in all_commands().values() for name in each.modules)))


def group(app: typer.Typer, name: str) -> typer.Typer:
    """Return the group of commands of this name, so that a plugin can add to it.

    Raises
    ------
    LookupError
        There is none.
    """
    for each in app.registered_groups:
        if each.name == name and each.typer_instance is not None:
            return each.typer_instance
    raise LookupError(f"there is no group of commands named {name}")


def program() -> typer.Typer:
    """Return the command line; a command's module is imported when the command is used."""
    group = lazy_group(all_commands())
    app = typer.Typer(cls=group, name="millstream", help=_ABOUT, no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(_root)
    return app


def main() -> None:
    """Run the command line; errors of the engine are printed with their advice, without a traceback."""
    # Kafka clients' own messages belong in a worker's log; a command prints what failed.
    logging.getLogger("librdkafka").addHandler(logging.NullHandler())
    app = program()
    try:
        app()
    except MillstreamError as error:
        from millstream.adapters.telemetry.logs import strike

        shown = Text.assemble((type(error).__name__, "bold red"), f": {strike(str(error))}")
        Console(stderr=True).print(shown, highlight=False, soft_wrap=True)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(130)
