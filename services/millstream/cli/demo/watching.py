"""Predictions and dead letters as a subscriber reads them, joined with the true labels."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from confluent_kafka import Message

from millstream.core.avro.decode import RecordReader
from millstream.core.batch import Batch

_LATENCIES = 200_000


@dataclass
class Seen:
    """Counts and samples, updated under ``lock``."""

    predictions: int = 0
    dead_letters: int = 0
    frauds: int = 0
    flagged: int = 0
    caught: int = 0
    caught_eur: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    arms: Counter[str] = field(default_factory=Counter)
    last: deque[tuple[str, int, float, float, str, bool]] = field(default_factory=lambda: deque(maxlen=6))
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))
    event_time_ms: int = 0
    doubled: int = 0
    positive: str = "positive"
    ids: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def outcomes(self) -> int:
        """Events that were answered, one way or the other."""
        return self.predictions + self.dead_letters


class Watcher:
    """Counts predictions and dead letters, and joins them with the true labels."""

    def __init__(
        self, predictions: RecordReader, dead_letters: RecordReader, truth: pl.DataFrame, positive: str
    ) -> None:
        self.seen = Seen(positive=positive)
        self._predictions = predictions
        self._dead_letters = dead_letters
        ids = truth["transaction_id"].to_numpy()
        self._is_fraud, self._amount = np.full(ids.max() + 1, -1), np.zeros(ids.max() + 1)
        self._is_fraud[ids], self._amount[ids] = truth["is_fraud"].to_numpy(), truth["amount"].to_numpy()

    def predicted(self, messages: Sequence[Message]) -> None:
        """Take messages of `predictions`."""
        now_ms = time.time_ns() / 1e6
        batch = self._predictions.decode([each.value() for each in messages], 1 << 30).batch
        with self.seen.lock:
            self._predicted(batch, now_ms)

    def died(self, messages: Sequence[Message]) -> None:
        """Take messages of `dead-letters`."""
        batch = self._dead_letters.decode([each.value() for each in messages], 1 << 30).batch
        with self.seen.lock:
            self.seen.dead_letters += batch.length
            self.seen.reasons.update(batch.columns["reason"].tolist())

    def _predicted(self, batch: Batch, now_ms: float) -> None:
        seen = self.seen
        ids = batch.columns["event_id"]
        scores = batch.columns["score"]
        decisions = batch.columns["decision"]
        flagged = decisions == seen.positive
        rows = np.array([int(each) if each.isdecimal() else -1 for each in ids], dtype=np.int64)
        known = (rows >= 0) & (rows < len(self._is_fraud))
        rows = np.where(known, rows, 0)
        fraud = (self._is_fraud[rows] == 1) & known
        seen.predictions += batch.length
        seen.frauds += int(fraud.sum())
        seen.flagged += int(flagged.sum())
        seen.caught += int((fraud & flagged).sum())
        seen.caught_eur += float(self._amount[rows][fraud & flagged].sum())
        seen.arms.update(batch.columns["arm"].tolist())
        seen.latencies_ms.extend((now_ms - batch.columns["received_at_ms"]).tolist())
        seen.event_time_ms = max(seen.event_time_ms, int(batch.columns["event_time_ms"].max()))
        before = len(seen.ids)
        seen.ids.update(ids.tolist())
        seen.doubled += batch.length - (len(seen.ids) - before)
        for at in range(max(0, batch.length - 3), batch.length):
            moment = int(batch.columns["event_time_ms"][at])
            amount = float(self._amount[rows[at]])
            seen.last.append((ids[at], moment, amount, float(scores[at]), str(decisions[at]), bool(fraud[at])))
