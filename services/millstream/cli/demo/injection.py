"""The changes that the demo makes to its stream, so that alerts open: small payments missing, a new kind of fraud."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import polars as pl

from millstream.core.drift.seasons import HOUR_MS

_DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Injection:
    """Two changes and when they end, in milliseconds of event time.

    Parameters
    ----------
    missing_ms : tuple of int
        From when to when ``missing_share`` of the payments below ``missing_below`` does not come: features move, and
        what they mean stays as it is.
    fraud_ms : tuple of int
        From when to when ``fraud_share`` of all payments is a fraud that no feature shows: what features mean changes.
    """

    missing_ms: tuple[int, int]
    fraud_ms: tuple[int, int]
    missing_share: float = 0.6
    missing_below: float = 50.0
    fraud_share: float = 0.006
    seed: int = 1

    def into(self, stream: pl.DataFrame) -> pl.DataFrame:
        """Return the stream with both changes; the same whenever it is asked for."""
        rng = np.random.default_rng(self.seed)
        fraud, missing = (
            pl.Series(rng.random(stream.height) < each) for each in (self.fraud_share, self.missing_share)
        )
        time_ms = pl.col("event_time_ms")
        new = time_ms.is_between(*self.fraud_ms, closed="left") & fraud
        absent = time_ms.is_between(*self.missing_ms, closed="left") & missing & (pl.col("amount") < self.missing_below)
        labels = pl.when(new).then(1).otherwise(pl.col("is_fraud")).cast(stream["is_fraud"].dtype)
        return stream.with_columns(is_fraud=labels).filter(~absent)


def injection(live_from_ms: int) -> Injection:
    """Return that of the demo: its incidents open and close within the first run.

    Labels come a week late, so the frauds come first. Neither is long: features of 7 and 30 days remember it.
    """
    return Injection(
        missing_ms=(live_from_ms + 11 * _DAY_MS, live_from_ms + 11 * _DAY_MS + 6 * HOUR_MS),
        fraud_ms=(live_from_ms + 4 * _DAY_MS, live_from_ms + 5 * _DAY_MS),
    )


def announcement(planned: Injection, from_ms: int) -> str:
    """Return what of it is still to come in a run that begins at an event time, in milliseconds, as a sentence."""
    (missing_from, missing_to), (fraud_from, fraud_to) = (
        [datetime.fromtimestamp(each / 1000, UTC).strftime("%d %b %H:%M") for each in span]
        for span in (planned.missing_ms, planned.fraud_ms)
    )
    coming = []
    if from_ms < planned.fraud_ms[1]:
        coming.append(
            f"from {fraud_from} to {fraud_to} one payment in {1 / planned.fraud_share:.0f} is a fraud of a new kind, "
            "whose labels arrive a week later"
        )
    if from_ms < planned.missing_ms[1]:
        coming.append(
            f"from {missing_from} to {missing_to} {planned.missing_share:.0%} of all payments below "
            f"{planned.missing_below:g} EUR do not come"
        )
    if not coming:
        return "Both injected changes are in the past of this run; --fresh starts before them."
    return f"To be noticed: {'; '.join(coming)}. --calm leaves both out."
