"""An `OnlineView` in memory that can go away, come back, and lose everything."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from millstream.errors import Retry
from millstream.ports import ViewRows


class FakeOnlineView:
    """Rows as (feature time, features) by (view, key).

    Attributes
    ----------
    away : bool
        True while the store cannot be reached.
    writes : int
        Rows asked for, applied or not.
    """

    def __init__(self) -> None:
        self.rows: dict[tuple[str, Hashable], tuple[int, tuple[float, ...]]] = {}
        self.mark: str | None = None
        self.away = False
        self.writes = 0

    def flush(self) -> None:
        """Lose everything, the mark included."""
        self.rows.clear()
        self.mark = None

    def _reach(self) -> None:
        if self.away:
            raise Retry("the online store is away")

    def write(self, rows: Sequence[ViewRows]) -> int:
        """See `OnlineView.write`."""
        self._reach()
        applied = 0
        for each in rows:
            columns = zip(each.keys.tolist(), each.feature_time_us.tolist(), each.features.tolist(), strict=True)
            for key, time_us, features in columns:
                self.writes += 1
                stored = self.rows.get((each.view, key))
                if stored is None or time_us > stored[0]:
                    self.rows[each.view, key] = (time_us, tuple(features))
                    applied += 1
        return applied

    def epoch(self) -> str | None:
        """See `OnlineView.epoch`."""
        self._reach()
        return self.mark

    def mark_epoch(self, epoch: str) -> None:
        """See `OnlineView.mark_epoch`."""
        self._reach()
        self.mark = epoch
