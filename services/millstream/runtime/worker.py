"""A worker process: Faust agents over channels, fed by the stage loops' polls.

Faust supervises agents and gives the service tree; it does no Kafka I/O here (its own acknowledges what failed).
Each stage has one thread in which it polls, processes and commits in turn; librdkafka, numba and LightGBM release the
interpreter lock there, so stages in one process overlap where it counts.
"""

from __future__ import annotations

import asyncio
import faulthandler
import functools
import gc
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millstream.errors import Aborted, MillstreamError, Retry, Stop
from millstream.runtime.agents.app import App
from millstream.runtime.log.records import Records
from millstream.runtime.loop import StageLoop

logger = logging.getLogger(__name__)

EXIT_STUCK = 70
_POLL_S = 0.2
_SWITCH_S = 0.0005
_RETRIES = 10
_RETRIES_AS_MEMBER = 3
_CALM_S = 60.0
_TRANSACTION_GRACE_S = 20.0
_SUSPENDED_S = 5.0


@dataclass(frozen=True, slots=True)
class _Batch:
    records: list[Records]
    done: asyncio.Future[None]


async def _agent(loop: StageLoop, thread: ThreadPoolExecutor, stream: AsyncIterator[_Batch]) -> None:
    """Handle each micro-batch; a failure goes back to the feeder, which stops the worker. None is ever skipped."""
    running = asyncio.get_running_loop()
    async for work in stream:
        try:
            await running.run_in_executor(thread, loop.handle, work.records)
        except MillstreamError as error:
            work.done.set_exception(Stop(str(error)) if isinstance(error, Retry) else error)
        except Exception as error:  # noqa: BLE001 handed on whole: the feeder raises it and the process leaves
            work.done.set_exception(error)
        else:
            work.done.set_result(None)


async def _feed(
    loop: StageLoop, thread: ThreadPoolExecutor, channel: Any, stopping: asyncio.Event, leave: Callable[[], None]
) -> None:
    running = asyncio.get_running_loop()
    failures, failed_at_s = 0, 0.0
    try:
        await running.run_in_executor(thread, loop.start)
        while not stopping.is_set():
            try:
                records = await running.run_in_executor(thread, loop.poll, _POLL_S)
                done: asyncio.Future[None] = running.create_future()
                await channel.send(value=_Batch(records, done))
                await done
            except (Aborted, Retry) as error:
                # A poll that brought nothing succeeds although the next transaction would fail in the same way.
                failures = failures + 1 if time.monotonic() - failed_at_s < _CALM_S else 1
                failed_at_s = time.monotonic()
                if failures > _RETRIES:
                    raise Stop(f"gave up after {_RETRIES} tries: {error}") from error
                # Each worker that leaves its group and joins it again makes the transactions of the others fail; but
                # partitions assigned in a poll that failed half-way would stay without state.
                as_member = isinstance(error, Aborted) and failures <= _RETRIES_AS_MEMBER
                doing = "recovering" if as_member else "rejoining the group"
                logger.warning("%s; %s (%s of %s)", error, doing, failures, _RETRIES)
                await running.run_in_executor(thread, functools.partial(loop.recover, as_member=as_member))
                await asyncio.sleep(min(0.01 * 2**failures, 5.0))
            else:
                failures = 0 if records else failures
    except BaseException:
        # State in memory may be ahead of the log: leave without a last checkpoint; the restart recovers.
        leave()
        raise
    await running.run_in_executor(thread, loop.close)


async def _watch_app(app: App, stopping: asyncio.Event, leave: Callable[[], None]) -> None:
    """End the worker when a timer or task of the app fails."""
    while not stopping.is_set():
        if app.crashed:
            leave()
            reason = app.crash_reason
            raise Stop(f"a timer or task of agents.py failed: {type(reason).__name__}: {reason}") from reason
        await asyncio.sleep(_POLL_S)


class Watchdog:
    """Ends the process when a stage hangs, or has lag and makes no progress, so that it is restarted.

    Time during which the process itself was suspended (SIGSTOP, a paused container) does not count.

    Parameters
    ----------
    loops : sequence of StageLoop
    limit_ms : int
        For how long there may be no progress.
    transaction_ms : int
        After which the broker aborts a transaction. A stage may take 20 s longer, to abort it and to replace the
        producer; librdkafka may wait without end for a coordinator that is gone (its issue 5456).
    stacks : Path
        File that the stacks of all threads are written to before the process ends.
    leave : callable
        Called with the exit code; does not return, except in tests.
    """

    def __init__(
        self,
        loops: Sequence[StageLoop],
        limit_ms: int,
        transaction_ms: int,
        stacks: Path,
        leave: Callable[[int], None] = os._exit,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loops = loops
        self._limit_s = limit_ms / 1000
        self._transaction_s = transaction_ms / 1000
        self._stacks = stacks
        self._resumed_s = -math.inf
        self._leave = leave
        self._clock_s = clock_s
        self._moved: dict[tuple[str, str, int], tuple[int, float]] = {}
        self._closed = threading.Event()

    def start(self) -> None:
        """Watch from a thread of its own."""
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self) -> None:
        before_s = self._clock_s()
        while not self._closed.wait(1.0):
            now_s = self._clock_s()
            if now_s - before_s > _SUSPENDED_S:
                self.resumed()
            before_s = now_s
            stuck = self.stuck()
            if stuck is not None:
                with self._stacks.open("w") as file:
                    faulthandler.dump_traceback(file=file)
                logger.critical("%s; exiting so that a restart recovers; stacks are in %s", stuck, self._stacks)
                self._leave(EXIT_STUCK)

    def resumed(self) -> None:
        """Count from now: until now the process was suspended."""
        self._resumed_s = self._clock_s()
        self._moved.clear()

    def stuck(self) -> str | None:
        """Return what hangs, in words, or None."""
        now_s = self._clock_s()
        for loop in self._loops:
            name, begun_s = loop.name, loop.transacting_since_s
            if begun_s is not None:
                writing_s = now_s - max(begun_s, self._resumed_s)
                if writing_s > self._transaction_s + _TRANSACTION_GRACE_S:
                    return f"stage {name} has been writing a transaction for {writing_s:.0f} s"
            idle_s = now_s - max(loop.progress_at_s, self._resumed_s)
            if idle_s > self._limit_s:
                return f"stage {name} has made no progress for {idle_s:.0f} s"
            lags = loop.log.lag() if loop.partitions else {}
            for place, at in loop.next_offsets.items():
                key = (name, *place)
                before = self._moved.get(key)
                if before is None or before[0] != at or not lags.get(place):
                    self._moved[key] = (at, now_s)
                elif now_s - before[1] > self._limit_s:
                    topic, partition = place
                    return f"stage {name}: {topic}[{partition}] has lag {lags[place]} and did not move past {at}"
        return None


async def serve(
    loops: Sequence[StageLoop],
    *,
    name: str,
    directory: Path,
    watchdog_ms: int,
    transaction_timeout_ms: int,
    shutdown_deadline_ms: int,
    stopping: asyncio.Event,
    app: App | None = None,
    process_goes_on: bool = False,
) -> None:
    """Run the stages until ``stopping`` is set (in the main thread SIGTERM and SIGINT set it) or one of them fails.

    Parameters
    ----------
    process_goes_on : bool
        Whether the process does something else afterwards; otherwise the shutdown deadline covers its end as well.

    Raises
    ------
    Stop
        A stage must not go on; nothing it had not committed is lost.
    """
    running = asyncio.get_running_loop()
    # What start-up left (a million objects of Feast's and its like) stays for good: looking through it again and again
    # for garbage would hold events up for a tenth of a second at a time.
    gc.collect()
    gc.freeze()
    # A stage gives the interpreter lock up some ten times per micro-batch, and would wait this long for each return
    # while the view's writer is at work.
    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    deadline = threading.Timer(shutdown_deadline_ms / 1000, os._exit, (EXIT_STUCK,))
    deadline.daemon = True

    def leave(*_: object) -> None:
        if stopping.is_set():
            return
        stopping.set()
        deadline.start()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            running.add_signal_handler(number, leave)
    app = app or App(name)
    app.sealed = True  # that of a project without agents.py as well: Faust itself streams from here on
    app.conf.datadir = directory
    threads = {loop.name: ThreadPoolExecutor(1, f"stage-{loop.name}") for loop in loops}
    feeders = []
    watchdog = Watchdog(loops, watchdog_ms, transaction_timeout_ms, directory / f"stacks-{name}.txt")
    channels = []
    for loop in loops:
        stage, thread = loop.name, threads[loop.name]
        channel = app.channel(maxsize=1)
        app.stage_agent(channel, stage, functools.partial(_agent, loop, thread))
        channels.append(channel)
    await app.start()
    # Without Kafka nobody else opens the flow of events to the agents.
    app.flow_control.resume()
    watchdog.start()
    try:
        for loop, channel in zip(loops, channels, strict=True):
            feed = _feed(loop, threads[loop.name], channel, stopping, leave)
            feeders.append(asyncio.create_task(feed, name=loop.name))
        feeders.append(asyncio.create_task(_watch_app(app, stopping, leave), name="app"))
        results = await asyncio.gather(*feeders, return_exceptions=True)
    finally:
        watchdog.close()
        await app.stop()
        for thread in threads.values():
            thread.shutdown(wait=False, cancel_futures=True)
        if process_goes_on:
            deadline.cancel()
            gc.unfreeze()
            sys.setswitchinterval(switch_s)
    for result in results:
        if isinstance(result, BaseException):
            raise result
