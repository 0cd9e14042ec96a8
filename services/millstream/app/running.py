"""Run stages in this process until it is asked to stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millstream.runtime.loop import StageLoop
    from millstream.settings import Settings

logger = logging.getLogger(__name__)

_SPARE_S = 8.0  # more than a group member's session


async def run_stages(
    settings: Settings,
    names: Sequence[str],
    stopping: asyncio.Event,
    *,
    process_goes_on: bool = False,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Run the named stages, or all, until ``stopping`` is set.

    In the main thread SIGTERM and SIGINT set it.

    Parameters
    ----------
    process_goes_on : bool
        Whether the process does something else afterwards.
    on_ready : callable
        Called once every stage has joined and recovered its partitions.

    Raises
    ------
    Misconfigured, Retry
        Something is missing; nothing was consumed.
    Stop
        A stage must not go on; nothing it had not committed is lost.
    """
    from millstream.adapters.telemetry.endpoint import worker_file
    from millstream.app.workers import build_worker
    from millstream.runtime.worker import serve

    with contextlib.ExitStack() as stack:
        worker = build_worker(settings, names, stack)
        address = worker_file(settings.state_dir, worker.name)
        ready = asyncio.create_task(_log_when_ready(worker.loops, address, on_ready))
        stack.callback(ready.cancel)
        await serve(
            worker.loops,
            name=worker.name,
            directory=settings.state_dir / "workers" / "faust",
            watchdog_ms=settings.watchdog_ms,
            transaction_timeout_ms=settings.transaction_timeout_ms,
            shutdown_deadline_ms=settings.shutdown_deadline_ms,
            stopping=stopping,
            app=worker.app,
            process_goes_on=process_goes_on,
        )


async def _log_when_ready(loops: Sequence[StageLoop], address: Path, on_ready: Callable[[], None]) -> None:
    """Log one line once every stage has joined and recovered its partitions.

    Right after a crash a stage may join without partitions, until the session of its former self times out.
    """
    while not all(loop.joined for loop in loops):
        await asyncio.sleep(0.1)
    spare_at_s = time.monotonic() + _SPARE_S
    while not all(loop.partitions for loop in loops) and time.monotonic() < spare_at_s:
        await asyncio.sleep(0.1)
    stages = ", ".join(f"{loop.name}[{','.join(map(str, loop.partitions)) or 'no partition'}]" for loop in loops)
    endpoint = json.loads(address.read_text())
    logger.info("ready: %s; metrics and health at http://%s:%s", stages, endpoint["host"], endpoint["port"])
    on_ready()


@contextmanager
def stages_in_thread(settings: Settings, names: Sequence[str]) -> Iterator[None]:
    """Run stages in a thread until the block ends; give control once they have recovered their partitions.

    Raises
    ------
    Misconfigured, Retry, Stop
        As `run_stages`, at the beginning or at the end of the block.
    """
    ready = threading.Event()
    stopping: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        stopping.append((asyncio.get_running_loop(), asyncio.Event()))
        await run_stages(settings, names, stopping[0][1], process_goes_on=True, on_ready=ready.set)

    with ThreadPoolExecutor(1, "stages") as pool:
        ended = pool.submit(asyncio.run, run())
        ended.add_done_callback(lambda _: ready.set())
        ready.wait()
        try:
            if not ended.done():
                yield
        finally:
            if not ended.done():
                loop, event = stopping[0]
                loop.call_soon_threadsafe(event.set)
        ended.result()
