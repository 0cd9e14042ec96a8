"""The ``millstream`` command: one module per group of commands, each with ``register(app)``.

Other packages add commands with an entry point of the group ``millstream.commands``, which is such a ``register``; the
lab (bench, chaos, evaluation) does.

Exit codes: 0 done; 1 a check found something; 2 wrong usage; 69 a server cannot be reached; 70 stopped by an error;
75 try again; 78 wrong configuration; 130 interrupted.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from importlib.metadata import entry_points

import typer
from rich.console import Console
from rich.text import Text

from millstream.errors import MillstreamError, Misconfigured, Retry

MODULES: tuple[str, ...] = (
    "new",
    "contracts",
    "stack",
    "doctor",
    "ingest",
    "dead_letters",
    "demo",
    "run",
    "replay",
    "train",
    "models",
    "alerts",
    "drift",
    "consume",
    "features",
    "parity",
    "quality",
    "labels",
    "topics",
)
PLUGINS = "millstream.commands"

app = typer.Typer(
    name="millstream",
    help="The streaming engine for a Feast feature repo.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """Events in, exact online features and scores out."""


def exit_code(error: MillstreamError) -> int:
    """Return the process exit code for an error, after sysexits.h."""
    if isinstance(error, Misconfigured):
        return 78
    return 75 if isinstance(error, Retry) else 70


def register_all(app: typer.Typer) -> None:
    """Add the engine's commands, then those of other installed packages."""
    for name in MODULES:
        importlib.import_module(f"millstream.cli.{name}").register(app)
    for plugin in entry_points(group=PLUGINS):
        # The image of the workers is built without the lab, which its metadata still names.
        if importlib.util.find_spec(plugin.module.partition(".")[0]) is not None:
            plugin.load()(app)


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


def main() -> None:
    """Run the command line; errors made on purpose print their advice without a traceback."""
    # Kafka clients' own remarks are for a worker's log; a command says itself what failed.
    logging.getLogger("librdkafka").addHandler(logging.NullHandler())
    register_all(app)
    try:
        app()
    except MillstreamError as error:
        from millstream.adapters.logs import strike

        shown = Text.assemble((type(error).__name__, "bold red"), f": {strike(str(error))}")
        Console(stderr=True).print(shown, highlight=False, soft_wrap=True)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(130)
