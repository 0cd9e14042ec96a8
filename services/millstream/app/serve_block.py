"""Servers, topics and stages for as long as a block of code lasts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from millstream.adapters.embedded import endpoints as servers
from millstream.app.project_workers import start_workers
from millstream.app.running import stages_in_thread
from millstream.app.setup import initialise
from millstream.app.training import promote

if TYPE_CHECKING:
    from millstream.app.assembly import Assembly
    from millstream.settings import Settings


@contextmanager
def serve_block(
    settings: Settings, assembly: Assembly, version: int | None, stages: Sequence[str], in_process: bool
) -> Iterator[None]:
    """Start what is needed, run the stages until the block ends, and stop what was started.

    Servers that ran before go on.

    Parameters
    ----------
    version : int or None
        Of the model to promote before the stages start.

    Raises
    ------
    Misconfigured, Retry, Stop
        Something is missing, a server does not come up, or a worker has left.
    """
    running = any(each.pid is not None for each in servers.status(settings))
    with ExitStack() as stack:
        if not running:
            stack.callback(servers.stop, settings)
        endpoints = servers.start(settings, lambda _step: None)
        initialise(settings, lambda _words: None)
        if version is not None:
            promote(assembly, endpoints.kafka, version)
        if in_process:
            stack.enter_context(stages_in_thread(settings, stages))
            yield
        else:
            workers = start_workers(settings, assembly, stack, "serve", stages)
            yield
            for worker in workers:
                worker.check()
