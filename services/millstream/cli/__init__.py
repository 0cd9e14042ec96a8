"""The ``millstream`` command: one module per group of commands, each with ``register(app)``.

Exit codes: 0 done; 1 a check found something; 2 wrong usage; 69 a server cannot be reached; 70 stopped by an error;
75 try again; 78 wrong configuration; 130 interrupted.
"""

from __future__ import annotations

import importlib
import logging
import sys

import typer
from rich.console import Console
from rich.text import Text

from millstream.errors import MillstreamError, Misconfigured, Retry

MODULES: tuple[str, ...] = (
    "contracts",
    "stack",
    "doctor",
    "simulate",
    "ingest",
    "dead_letters",
    "demo",
    "run",
    "replay",
    "train",
    "models",
    "alerts",
    "drift",
    "evaluate",
    "consume",
    "features",
    "parity",
    "quality",
    "labels",
    "topics",
    "bench",
    "chaos",
)

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


def main() -> None:
    """Run the command line; errors made on purpose print their advice without a traceback."""
    # Kafka clients' own remarks are for a worker's log; a command says itself what failed.
    logging.getLogger("librdkafka").addHandler(logging.NullHandler())
    for name in MODULES:
        importlib.import_module(f"millstream.cli.{name}").register(app)
    try:
        app()
    except MillstreamError as error:
        from millstream.adapters.logs import strike

        shown = Text.assemble((type(error).__name__, "bold red"), f": {strike(str(error))}")
        Console(stderr=True).print(shown, highlight=False, soft_wrap=True)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(130)
