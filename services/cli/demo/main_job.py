"""The demo from beginning to end, each step on the parts a user would run alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import polars as pl
from rich.console import Console
from rich.live import Live
from rich.table import Table

from services.adapters import endpoints as servers
from services.adapters.endpoints import Endpoints
from services.adapters.paced_publisher import PacedPublisher
from services.adapters.producer import drain, open_producer
from services.cli.assembly import Assembly
from services.cli.demo.history import Bookmark, Past, replay_past, seed_state, simulated
from services.cli.demo.screen import Screen
from services.cli.demo.watching import Seen, Watcher
from services.cli.demo.worker_processes import WorkerProcess, start_workers
from services.cli.screen import steps
from services.cli.setup import initialise
from services.core.avro.decode import RecordReader
from services.core.avro.encode import RecordWriter
from services.core.batch import Batch
from services.core.pacing import Pace
from services.settings import Settings
from services.topology import DEAD_LETTERS, PREDICTIONS

_LINE_EVERY_S = 5.0


def run_main_job(settings: Settings, console: Console, *, seconds: int, rate: int, fresh: bool) -> None:
    """Set everything up, stream, and say what happened and what to try next.

    Raises
    ------
    MillstreamError
        Saying which step failed and what to do.
    """
    bookmark = Bookmark(settings.state_dir / "demo" / "bookmark.json")
    with _timed(console, "Kafka and Valkey"):
        if fresh:
            servers.stop(settings)
            servers.wipe(settings)
            bookmark.forget()
        endpoints = servers.start(settings, steps(console))
    console.print(f"  Kafka {endpoints.kafka['bootstrap.servers']}, Valkey {endpoints.redis_url}")
    with _timed(console, "topics, schemas and the Feast repo"):
        assembly = initialise(settings, lambda words: console.print(f"  [dim]{words}[/]", soft_wrap=True))
    with _timed(console, "the Fraud Detection Handbook's card payments"):
        past = simulated(settings.state_dir / "demo", console)
    frauds = int(past.stream["is_fraud"].sum())
    console.print(f"  {past.stream.height:,} payments over 183 days, {frauds:,} of them frauds")
    kept = bookmark.read()
    if kept is None:
        _learn(settings, console, assembly, endpoints, past)
        bookmark.write(past.live_row)
        kept = {"next_row": past.live_row}
    if kept["next_row"] >= past.stream.height:
        console.print("[yellow]The last run reached the end of the stream; start over with --fresh.[/]")
        return
    with ExitStack() as stack:
        with _timed(console, "workers"):
            workers = start_workers(settings, assembly, stack)
        _stream(console, assembly, endpoints, past, bookmark, workers, seconds, rate)
    _what_next(console, past)


@contextmanager
def _timed(console: Console, title: str) -> Iterator[None]:
    started_s = time.perf_counter()
    console.print(f"[bold cyan]{title}[/]")
    yield
    console.print(f"  [green]done[/] in {time.perf_counter() - started_s:.1f} s")


def _learn(settings: Settings, console: Console, assembly: Assembly, endpoints: Endpoints, past: Past) -> None:
    """Replay the past, train on it, promote the model, and hand the filled windows to the live stages."""
    from services.cli.train import train_and_promote

    with _timed(console, "history: April to July through the same stages, in memory"):
        history, features = replay_past(assembly, past, console)
    with _timed(console, "the first model"):
        train_and_promote(settings, assembly, endpoints.kafka, features, "is_fraud", console)
    with _timed(console, "windows: the replayed state becomes the live stages' state"):
        rows = seed_state(assembly, endpoints, history)
        console.print(f"  {rows:,} rows of window state written to the changelogs")


class _Feed(threading.Thread):
    """The producer: publishes rows of the stream at a steady rate until told to stop."""

    def __init__(
        self, assembly: Assembly, endpoints: Endpoints, rows: pl.DataFrame, first_row: int, rate: int, until_s: float
    ) -> None:
        super().__init__(name="producer", daemon=True)
        self._assembly = assembly
        self._client = open_producer(endpoints.kafka, paced=True)
        self._rows = rows
        self._first_row = first_row
        self._until_s = until_s
        self.publisher = PacedPublisher(self._client, Pace("rate", float(rate)))
        self.stopping = threading.Event()
        self.failure: Exception | None = None
        self.next_row = first_row

    def run(self) -> None:
        contract = self._assembly.contract
        writer = RecordWriter(contract.schema)
        names = [field.name for field in contract.schema.fields]
        at = self._first_row
        try:
            for chunk in self._rows.select(names).iter_slices(200):
                if self.stopping.is_set() or time.monotonic() > self._until_s:
                    break
                batch = Batch(chunk.height, {name: chunk[name].to_numpy() for name in names})
                tags = list(range(at, at + chunk.height))
                self.publisher.send(
                    self._assembly.declaration.topic, contract, writer, batch, contract.event_time, tags
                )
                at += chunk.height
                self.next_row = at
            drain(self._client, self.publisher.deliveries)
        except Exception as error:  # noqa: BLE001 shown by the screen, which then ends the demo
            self.failure = error


def _stream(
    console: Console,
    assembly: Assembly,
    endpoints: Endpoints,
    past: Past,
    bookmark: Bookmark,
    workers: list[WorkerProcess],
    seconds: int,
    rate: int,
) -> None:
    kept = bookmark.read() or {"next_row": past.live_row}
    resolve = assembly.resolver()
    tags = assembly.declaration.service.tags
    watcher = Watcher(
        endpoints.kafka,
        RecordReader(assembly.contracts[PREDICTIONS].schema, resolve),
        RecordReader(assembly.contracts[DEAD_LETTERS].schema, resolve),
        past.stream.select("is_fraud", "amount"),
        tags.get("decision_above", "positive"),
    )
    until_s = time.monotonic() + seconds
    rows = past.stream.slice(kept["next_row"])
    feed = _Feed(assembly, endpoints, rows, kept["next_row"], rate, until_s)
    screen = Screen(f"{assembly.declaration.service.name} (LightGBM)", "Most labels are known only 7 days later.")
    watcher.start()
    feed.start()
    interrupted = False
    try:
        with _shown(console, screen) as show:
            settled_s = None
            while True:
                for failure in (feed.failure, watcher.failure):
                    if failure is not None:
                        raise failure
                for worker in workers:
                    worker.check()
                deliveries = feed.publisher.deliveries
                show(watcher.seen, deliveries.sent, deliveries.acked, until_s - time.monotonic())
                outcomes = watcher.seen.outcomes
                if not feed.is_alive() and (
                    outcomes >= deliveries.acked or (settled_s or time.monotonic()) < time.monotonic() - 20
                ):
                    break
                settled_s = settled_s or (time.monotonic() if not feed.is_alive() else None)
                time.sleep(0.1)
    except KeyboardInterrupt:
        interrupted = True
        console.print("stopping: what was published is still answered")
        feed.stopping.set()
        feed.join(60)
        waited_until_s = time.monotonic() + 10
        while watcher.seen.outcomes < feed.publisher.deliveries.acked and time.monotonic() < waited_until_s:
            time.sleep(0.1)
    finally:
        bookmark.write(feed.next_row)
        watcher.close()
    _summary(console, watcher, feed, screen, interrupted)


@contextmanager
def _shown(console: Console, screen: Screen) -> Iterator[Callable[[Seen, int, int, float], None]]:
    """Give what shows the state of the run: a live view on a terminal, and elsewhere a line now and then."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4) as live:
            yield lambda *state: live.update(screen.frame(*state))
        return
    told_s = time.monotonic()

    def line(seen: Seen, published: int, acked: int, seconds_left: float) -> None:
        nonlocal told_s
        if time.monotonic() - told_s >= _LINE_EVERY_S:
            told_s = time.monotonic()
            console.print(f"  {screen.line(seen, published, acked, seconds_left)}", highlight=False, soft_wrap=True)

    yield line


def _summary(console: Console, watcher: Watcher, feed: _Feed, screen: Screen, interrupted: bool) -> None:
    import numpy as np

    seen, sent = watcher.seen, feed.publisher.deliveries
    latencies = np.array(list(seen.latencies_ms) or [float("nan")])
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99])
    table = Table(title="stopped by you" if interrupted else "what happened", show_header=False)
    table.add_row("published and acknowledged", f"{sent.acked:,}")
    table.add_row("predictions", f"{seen.predictions:,}")
    table.add_row("dead letters", f"{seen.dead_letters:,}")
    table.add_row("events with two predictions", f"{seen.doubled:,}")
    table.add_row("events without an outcome", f"{max(0, sent.acked - seen.outcomes):,}")
    table.add_row("end to end, produced to visible", f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms")
    recall = seen.caught / seen.frauds if seen.frauds else 0.0
    table.add_row("frauds caught", f"{seen.caught} of {seen.frauds} ({recall:.0%}), {seen.caught_eur:,.0f} EUR")
    table.add_row("flagged", f"{seen.flagged}, {seen.caught / seen.flagged if seen.flagged else 0:.0%} rightly")
    console.print(table)


def _what_next(console: Console, past: Past) -> None:
    row = past.stream.row(past.live_row, named=True)
    customer, terminal = row["customer_id"], row["terminal_id"]
    console.print(
        "\n[bold]Try next[/] (the servers keep running; `millstream` is .venv/bin/millstream)\n"
        f"  millstream features get customer_id={customer} terminal_id={terminal}   online features, through Feast\n"
        "  millstream consume predictions --last 5                read predictions as a subscriber does\n"
        "  millstream dead-letters summary                        what could not go on, and why\n"
        "  millstream models list                                 the registry\n"
        "  millstream demo                                        go on where this run stopped\n"
        "  millstream down                                        stop the servers; --wipe forgets everything",
        highlight=False,
        soft_wrap=True,
    )
