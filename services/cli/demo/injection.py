"""What the demo does to its stream, so that there is something to alert on: dearer payments, fraud of a new kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from services.core.drift.seasons import HOUR_MS

_DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Injection:
    """Two changes and when they end, in milliseconds of event time.

    Parameters
    ----------
    shift_ms : tuple of int
        From when to when every amount is ``factor`` times what it was.
    fraud_ms : tuple of int
        From when to when ``share`` of all payments are frauds that nothing tells apart.
    """

    shift_ms: tuple[int, int]
    fraud_ms: tuple[int, int]
    factor: float = 1.5
    share: float = 0.01
    seed: int = 1

    def into(self, stream: pl.DataFrame) -> pl.DataFrame:
        """Return the stream with both changes."""
        time_ms = pl.col("event_time_ms")
        chosen = pl.Series(np.random.default_rng(self.seed).random(stream.height) < self.share)
        return stream.with_columns(
            amount=pl.when(time_ms.is_between(*self.shift_ms, closed="left"))
            .then((pl.col("amount") * self.factor).round(2))
            .otherwise(pl.col("amount")),
            is_fraud=pl.when(time_ms.is_between(*self.fraud_ms, closed="left") & chosen)
            .then(1)
            .otherwise(pl.col("is_fraud"))
            .cast(stream["is_fraud"].dtype),
        )


def injection(live_from_ms: int) -> Injection:
    """Return that of the demo: its two incidents open late in its first run and close before the end.

    Labels come a week late, so the frauds begin earlier.
    """
    return Injection(
        shift_ms=(live_from_ms + 15 * _DAY_MS, live_from_ms + 17 * _DAY_MS),
        fraud_ms=(live_from_ms + 8 * _DAY_MS, live_from_ms + 11 * _DAY_MS),
    )
