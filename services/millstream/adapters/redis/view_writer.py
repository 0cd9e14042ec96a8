"""Writes the online view asynchronously: stages enqueue rows, a thread writes the newest of each key.

Nothing here is the source of truth. Rows that wait are conflated (per view and key the newest wins), so a store that
is away costs memory per key, not per event; what a store lost is asked for again.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence

from millstream.adapters.feast.codec import ViewCodec
from millstream.adapters.feast.codec_check import check_codecs
from millstream.adapters.feast.compiled_repo import compiled_repo
from millstream.adapters.redis.newest_rows import newest
from millstream.adapters.redis.online_view import RedisOnlineView
from millstream.core.declaration import Declaration
from millstream.errors import Retry, Stop
from millstream.ports import OnlineView, ViewRows
from millstream.settings import Settings

logger = logging.getLogger(__name__)

_ROWS_PER_WRITE = 4096
_LINGER_S = 0.005
_BACK_OFF_S = (0.05, 2.0)
_CLOSE_S = 5.0


class ViewWriter:
    """`millstream.runtime.loop.View` on an `OnlineView`; `start` it before use and `close` it after.

    When the store's mark is gone, or is another than was seen last, the store lost rows: then a new mark is left and
    each source is asked once for all its rows. The mark comes first, so that a loss in the middle shows as well; rows
    that a crash keeps from being asked for are offered by recovery.

    Parameters
    ----------
    view : OnlineView
        Only used in the writer's thread.
    sources : sequence of str
        Who offers rows (stage names).
    check_interval_s : float
        Between two looks at the store's mark.

    Attributes
    ----------
    written_by_view : Counter
        Rows the store took; those that were not newer than what it had do not count.
    conflated : int
        Rows never written because a newer one of the same key came before they were.
    failures : int
        Writes and looks at the mark that failed and were tried again.
    """

    def __init__(
        self,
        view: OnlineView,
        sources: Sequence[str],
        check_interval_s: float = 1.0,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._view = view
        self._sources = frozenset(sources)
        self._check_interval_s = check_interval_s
        self._clock_s = clock_s
        self._incoming: deque[tuple[float, ViewRows]] = deque()
        self._left: list[ViewRows] = []
        self._conflating = 0
        self._oldest_s: float | None = None
        self._seen: str | None = None
        self._looked = False
        self._look_at_s = float("-inf")
        self._refill: tuple[str, frozenset[str]] | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="view-writer", daemon=True)
        self._away = False
        self.written_by_view: Counter[str] = Counter()
        self.conflated = 0
        self.failures = 0

    @property
    def written(self) -> int:
        """Rows the store took, of all views."""
        return self.written_by_view.total()

    @property
    def pending(self) -> int:
        """Rows that wait to be written; while the store answers, an upper bound of the keys."""
        with self._lock:
            waiting = [*self._left, *(rows for _, rows in self._incoming)]
            return self._conflating + sum(len(rows.keys) for rows in waiting)

    @property
    def staleness_ms(self) -> float:
        """Age of the oldest row that waits, milliseconds; 0 when none does."""
        with self._lock:
            waiting = [self._oldest_s] if self._oldest_s is not None else []
            waiting += [self._incoming[0][0]] if self._incoming else []
        return max(0.0, (self._clock_s() - min(waiting)) * 1000) if waiting else 0.0

    def start(self) -> ViewWriter:
        """Start writing."""
        self._thread.start()
        return self

    def offer(self, rows: Sequence[ViewRows]) -> None:
        """Take rows to be written when possible; never waits.

        Raises
        ------
        Stop
            The writer ended by an error that it cannot handle; see the log.
        """
        if self._thread.ident is not None and not self._thread.is_alive():
            raise Stop("the writer of the online view ended, see the log above; restart the process")
        now_s = self._clock_s()
        with self._lock:
            self._incoming.extend((now_s, each) for each in rows if len(each.keys))
        self._wake.set()

    def refill_required(self, source: str) -> str | None:
        """Return the epoch for which this source has yet to offer all its rows, else None."""
        refill = self._refill
        return refill[0] if refill is not None and source in refill[1] else None

    def refilled(self, epoch: str, source: str) -> None:
        """Mark that the source has offered all its rows."""
        with self._lock:
            if self._refill is not None and self._refill[0] == epoch:
                left = self._refill[1] - {source}
                self._refill = (epoch, left) if left else None

    def drain(self, deadline_s: float) -> bool:
        """Wait until nothing is pending, at most so many seconds; return whether that came."""
        until_s = time.monotonic() + deadline_s
        while self.pending:
            if time.monotonic() >= until_s or not self._thread.is_alive():
                return False
            time.sleep(0.005)
        return True

    def close(self) -> None:
        """Write what can be written within a few seconds and end; what is left, recovery offers again."""
        if self._thread.is_alive() and not self._away and not self.drain(_CLOSE_S):
            logger.warning("%s rows were not written to the online store; the next start offers them", self.pending)
        self._closing.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        back_off_s = _BACK_OFF_S[0]
        while not self._closing.is_set():
            self._wake.clear()
            self._conflate()  # also while the store is away, or what waits would grow with every event
            try:
                if self._clock_s() >= self._look_at_s:
                    self._look()
                self._write()
            except Retry as error:
                self._failed(error)
                self._closing.wait(back_off_s)
                back_off_s = min(2 * back_off_s, _BACK_OFF_S[1])
                continue
            back_off_s = _BACK_OFF_S[0]
            self._answered()
            self._wake.wait(max(0.0, self._look_at_s - self._clock_s()))
            # A moment for more rows to come: fewer, larger writes, and more that need none.
            self._closing.wait(_LINGER_S)

    def _failed(self, error: Retry) -> None:
        self.failures += 1
        self._look_at_s = float("-inf")  # another server may answer next
        if not self._away:
            self._away = True
            logger.warning("the online store does not take rows, scoring goes on without it: %s", error)

    def _answered(self) -> None:
        if self._away:
            self._away = False
            logger.info("the online store takes rows again")

    def _look(self) -> None:
        mark = self._view.epoch()
        if mark is None or (self._looked and mark != self._seen):
            if mark is None:
                mark = uuid.uuid4().hex
                self._view.mark_epoch(mark)
            with self._lock:
                self._refill = (mark, self._sources)
            logger.info("the online store is new or lost its rows: %s offer theirs again", ", ".join(self._sources))
        self._seen, self._looked = mark, True
        self._look_at_s = self._clock_s() + self._check_interval_s

    def _write(self) -> None:
        """Write everything that waits; what could not be written waits on, the rows that failed last in line."""
        while self._left and not self._closing.is_set():
            rows = self._left[0]
            try:
                applied = self._view.write([rows])
            except Retry:
                with self._lock:
                    self._left.append(self._left.pop(0))
                raise
            self.written_by_view[rows.view] += applied
            with self._lock:
                self._left.pop(0)
                self._oldest_s = self._oldest_s if self._left else None

    def _conflate(self) -> None:
        with self._lock:
            taken = list(self._incoming)
            self._incoming.clear()
            if not taken:
                return
            self._oldest_s = taken[0][0] if self._oldest_s is None else self._oldest_s
            self._conflating = sum(len(rows.keys) for _, rows in taken)
        # Outside of the lock: stages must not wait for it, however much there is.
        views: dict[str, list[ViewRows]] = {}
        for rows in (*self._left, *(each for _, each in taken)):
            views.setdefault(rows.view, []).append(rows)
        left: list[ViewRows] = []
        for each in views.values():
            kept = newest(each)
            self.conflated += sum(len(rows.keys) for rows in each) - len(kept.keys)
            left += _parts(kept)
        with self._lock:
            self._left, self._conflating = left, 0


def _parts(rows: ViewRows) -> Iterable[ViewRows]:
    for first in range(0, len(rows.keys), _ROWS_PER_WRITE):
        yield rows.take(slice(first, first + _ROWS_PER_WRITE))


def open_online_view(settings: Settings, declaration: Declaration, redis_url: str) -> RedisOnlineView:
    """Return the online view of a declaration, its codecs validated against Feast here or when the repo was compiled.

    Raises
    ------
    Misconfigured
        A view has features that cannot be written.
    """
    codecs = {view.name: ViewCodec(declaration.project, view) for view in declaration.views}
    compiled = compiled_repo(settings)
    alike = set(compiled.alike) if compiled.declaration.project == declaration.project else set()
    fallbacks = check_codecs(
        settings, declaration.project, [each for each in codecs.values() if each.view not in alike]
    )
    return RedisOnlineView(redis_url, declaration.project, codecs, fallbacks)


def open_view_writer(
    settings: Settings, declaration: Declaration, redis_url: str, sources: Sequence[str]
) -> ViewWriter:
    """Return a started writer of the declaration's views.

    Parameters
    ----------
    sources : sequence of str
        Names of the stages that will offer rows.

    Raises
    ------
    Misconfigured
        A view has features that cannot be written.
    """
    return ViewWriter(open_online_view(settings, declaration, redis_url), sources).start()
