"""The progress bar of commands that publish."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

from millstream.adapters.kafka.paced_publisher import PacedPublisher
from millstream.app.publishing import open_publisher
from millstream.cli.screen import progress
from millstream.core.pacing import Pace


@contextmanager
def publisher_with_bar(
    console: Console,
    kafka: Mapping[str, str],
    pace: Pace,
    total: int,
    doing: str,
    skipped: Callable[[], int] = lambda: 0,
) -> Iterator[PacedPublisher]:
    """Give a publisher whose deliveries a progress bar shows; on leaving, however, wait for what is under way.

    ``skipped`` returns how many of ``total`` were done without being sent.

    Raises
    ------
    Retry, Stop
        Records were not acknowledged.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]} events/s, {task.fields[acked]:,} acked, eta"),
        TimeRemainingColumn(compact=True),
    )
    with progress(console, *columns, transient=False) as bars:
        bar = bars.add_task(doing, total=total, rate="-", acked=0)

        def show(publisher: PacedPublisher) -> None:
            done = publisher.deliveries
            speed = bars.tasks[0].speed
            bars.update(
                bar, completed=done.sent + skipped(), acked=done.acked, rate="-" if speed is None else f"{speed:,.0f}"
            )

        with open_publisher(kafka, pace, show) as publisher:
            yield publisher
