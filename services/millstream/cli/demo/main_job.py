"""The demo from beginning to end, each step on the parts a user would run alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from rich.console import Console
from rich.live import Live

from millstream.adapters.embedded import endpoints as servers
from millstream.adapters.embedded.endpoints import Endpoints
from millstream.app.assembly import Assembly, assemble
from millstream.app.project_workers import start_workers
from millstream.app.seeding import seed_state
from millstream.app.setup import initialise
from millstream.app.worker_processes import WorkerProcess
from millstream.cli.demo.alarms import Alarms
from millstream.cli.demo.feed import Feed
from millstream.cli.demo.following import Counter, Follower
from millstream.cli.demo.history import LIVE_FROM_MS, Bookmark, Past, replay_past, require_payments, simulated
from millstream.cli.demo.injection import announcement, injection
from millstream.cli.demo.learning import Learning
from millstream.cli.demo.screen import Moment, Screen
from millstream.cli.demo.summary import compare, list_alerts, summarise
from millstream.cli.demo.watching import Watcher
from millstream.cli.screen import steps
from millstream.core.avro.decode import RecordReader
from millstream.settings import Settings
from millstream.topology import ALERTS, DEAD_LETTERS, EXAMPLES, PREDICTIONS, QUALITY, SNAPSHOTS

_LINE_EVERY_S = 5.0
_SETTLE_S = 20.0
_MOST_BEHIND_S = 1.0
_CHECKPOINT_S = 2.5
"""After everything is counted: the progress of the labels, which makes days mature, is published a checkpoint later."""


def run_main_job(settings: Settings, console: Console, *, seconds: int, rate: int, fresh: bool, calm: bool) -> None:
    """Set everything up, stream, and print the results and what to try next.

    Unless ``calm``, payments and frauds change for some days of the stream, so that alerts open.

    Raises
    ------
    MillstreamError
        Naming the step that failed and what to do.
    """
    needed = assemble(settings)
    require_payments(needed.declaration.topic, needed.contract)
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
    planned = injection(LIVE_FROM_MS)
    if not calm:
        past = replace(past, stream=planned.into(past.stream))
    if kept["next_row"] >= past.stream.height:
        console.print("[yellow]The last run reached the end of the stream; start over with --fresh.[/]")
        return
    if not calm:
        announced = announcement(planned, int(past.stream["event_time_ms"][kept["next_row"]]))
        console.print(announced, highlight=False, soft_wrap=True)
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
    """Replay the past, train on it, promote the model, and store the filled windows for the live stages."""
    from millstream.cli.train import train_and_promote

    with _timed(console, "history: April to July through the same stages, in memory"):
        history, features = replay_past(assembly, past, console)
    with _timed(console, "the first model"):
        train_and_promote(settings, assembly, endpoints.kafka, features, "is_fraud", console)
    with _timed(console, "windows: the replayed state becomes the live stages' state"):
        rows = seed_state(assembly, endpoints, history)
        console.print(f"  {rows:,} rows of window state written to the changelogs")


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
        RecordReader(assembly.contracts[PREDICTIONS].schema, resolve),
        RecordReader(assembly.contracts[DEAD_LETTERS].schema, resolve),
        past.stream.select("transaction_id", "is_fraud", "amount"),
        tags.get("decision_above", "positive"),
    )
    learning = Learning(RecordReader(assembly.contracts[QUALITY].schema, resolve), assembly.snapshot_key())
    alarms = Alarms(RecordReader(assembly.contracts[ALERTS].schema, resolve))
    joined = Counter()
    handlers = {
        EXAMPLES: joined.came,
        PREDICTIONS: watcher.predicted,
        DEAD_LETTERS: watcher.died,
        QUALITY: learning.measured,
        SNAPSHOTS: learning.learnt,
        ALERTS: alarms.update,
    }
    follower = Follower(endpoints.kafka, handlers, whole={QUALITY, SNAPSHOTS, ALERTS})

    def behind() -> bool:
        """Whether predictions or examples are further behind than event time allows."""
        unanswered = feed.publisher.deliveries.acked - watcher.seen.outcomes
        return max(unanswered, feed.labels - labels_before - joined.count) > _MOST_BEHIND_S * rate

    feed = Feed(assembly, endpoints, past, kept["next_row"], rate, seconds * rate, behind)
    labels_before = feed.labels
    screen = Screen(f"{assembly.declaration.service.name} (LightGBM)")

    def settled() -> bool:
        """Whether all published events are scored, learnt and counted."""
        answered = watcher.seen.outcomes >= feed.publisher.deliveries.acked
        learnt = learning.examples >= feed.labels or not assembly.declares_online_model
        return answered and learnt and learning.counted >= feed.labels

    follower.start()
    feed.start()
    interrupted = False
    try:
        with _shown(console, screen) as show:
            ended_s = settled_s = math.inf
            while True:
                for failure in (feed.failure, follower.failure):
                    if failure is not None:
                        raise failure
                for worker in workers:
                    worker.check()
                deliveries = feed.publisher.deliveries
                left_s = max(0.0, seconds - deliveries.sent / rate)
                show(Moment(watcher.seen, learning, alarms, deliveries.sent, deliveries.acked, feed.labels, left_s))
                if not feed.is_alive():
                    now_s = time.monotonic()
                    ended_s, settled_s = min(ended_s, now_s), min(settled_s, now_s if settled() else math.inf)
                    if now_s > min(ended_s + _SETTLE_S, settled_s + _CHECKPOINT_S):
                        break
                time.sleep(0.1)
    except KeyboardInterrupt:
        interrupted = True
        console.print("stopping: published events are still scored")
        _let_finish(feed, settled)
    finally:
        bookmark.write(feed.next_row)
        follower.close()
    summarise(console, watcher.seen, learning, feed, interrupted)
    compare(console, learning, bookmark.folder / "quality.png")
    list_alerts(console, alarms)


def _let_finish(feed: Feed, settled: Callable[[], bool]) -> None:
    feed.stopping.set()
    feed.join(60)
    waited_until_s = time.monotonic() + 10
    while not settled() and time.monotonic() < waited_until_s:
        time.sleep(0.1)


@contextmanager
def _shown(console: Console, screen: Screen) -> Iterator[Callable[[Moment], None]]:
    """Yield a function that shows the state of the run: a live view on a terminal, else a line every few seconds."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4) as live:
            yield lambda moment: live.update(screen.frame(moment))
        return
    printed_s = time.monotonic()

    def line(moment: Moment) -> None:
        nonlocal printed_s
        if time.monotonic() - printed_s >= _LINE_EVERY_S:
            printed_s = time.monotonic()
            console.print(f"  {screen.line(moment)}", highlight=False, soft_wrap=True)

    yield line


def _what_next(console: Console, past: Past) -> None:
    row = past.stream.row(past.live_row, named=True)
    customer, terminal = row["customer_id"], row["terminal_id"]
    console.print(
        "\n[bold]Try next[/] (the servers keep running; `millstream` is .venv/bin/millstream)\n"
        f"  millstream features get customer_id={customer} terminal_id={terminal}   online features, through Feast\n"
        "  millstream consume predictions --last 5                read predictions as a subscriber does\n"
        "  millstream dead-letters summary                        rejected records, and why\n"
        "  millstream quality                                     quality of each model, day by day\n"
        "  millstream models online                               what the online model has learnt\n"
        "  millstream alerts --all                                incidents; `alerts show ID` shows one in full\n"
        "  millstream models list                                 the registry\n"
        "  millstream demo                                        continue where this run stopped\n"
        "  millstream down                                        stop the servers; --wipe deletes all data",
        highlight=False,
        soft_wrap=True,
    )
