"""State of the quality stage in a compacted changelog topic: changed rows, and the offsets they are valid for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from millstream.core.ledger.tally import LedgerReport, decode_report, encode_report
from millstream.core.metrics import DAY_MS
from millstream.core.quality.board import Board
from millstream.core.quality.pieces import joined, key_of, split
from millstream.core.quality.report import Reporter, SlotFigures
from millstream.core.quality.snapshot import LAYOUT, changed_rows, is_forgotten, load
from millstream.stages.quality.blocks import MARKER, Blocks

_MOST_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class MeasuredConfiguration:
    """What figures are of; a change of it reads all examples again.

    Parameters
    ----------
    maturities_days : tuple of int
        Ascending; the last is the label horizon, after which nothing changes and all is forgotten.
    investigated, group : str
        Columns; see `millstream.core.quality.scored_records.ScoredRecords`.
    k : int
        Of card precision.
    online_share : float
        As `millstream.core.quality.scored_records.ScoredRecords`.
    """

    maturities_days: tuple[int, ...]
    investigated: str
    group: str
    k: int
    online_share: float = 0.5

    @property
    def fingerprint(self) -> str:
        """What rows that are stored must have been written with."""
        return json.dumps([LAYOUT, self.maturities_days, self.investigated, self.group, self.online_share])


@dataclass
class QualityState:
    """Board, reporter and how far all has come.

    Parameters
    ----------
    declared : MeasuredConfiguration
    ledger_reports : dict of int to LedgerReport
        Newest report of the join's ledger, by partition.
    newest_label_ms : int
        When the newest label of an example became known.
    offsets : dict of str to int
        By topic, what the state was valid for when it was loaded.
    stored : dict of bytes to None
        Keys of the records that hold it.
    """

    declared: MeasuredConfiguration
    ledger_reports: dict[int, LedgerReport] = field(default_factory=dict)
    newest_label_ms: int = -1
    offsets: dict[str, int] = field(default_factory=dict)
    stored: dict[bytes, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.board = Board(self.declared.maturities_days)
        self.reporter = Reporter(self.board, self.declared.k)
        self._cut_off: dict[bytes, bytes | None] = {}
        self._storing: dict[bytes, None] = {}

    @property
    def as_of_ms(self) -> int:
        """How far the label stream has come: its slowest partition, and no further than examples have been read."""
        partitions = [
            ledger_reports.labels_to_ms
            for ledger_reports in self.ledger_reports.values()
            if ledger_reports.labels_to_ms >= 0
        ]
        return min([self.newest_label_ms, *partitions])

    def load(self, blocks: Blocks) -> bool:
        """Restore what `changes` wrote; False if it was for something else declared, and will be replaced.

        Raises
        ------
        ValueError, KeyError, TypeError, IndexError, zlib.error
            If the records are not what was written. Then only `replace` them.
        """
        records = blocks.rows
        marker: dict[str, Any] = json.loads(records.get(MARKER, b"null"))
        if marker is None or marker["fingerprint"] != self.declared.fingerprint:
            self.replace(blocks)
            return not records
        self._cut_off = dict(blocks.cut_off)
        if self._cut_off and len(records) - 1 != marker["rows"]:
            raise ValueError("compaction removed rows that a checkpoint which was cut off had written again")
        rows = {name: value for name, value in records.items() if name != MARKER}
        self.stored = dict.fromkeys(rows)
        self.board.first_day = marker["first_day"]
        self.newest_label_ms = marker["newest_label_ms"]
        self.ledger_reports = {int(partition): decode_report(text) for partition, text in marker["told"].items()}
        self.offsets = marker["offsets"]
        load(self.board, joined(rows))
        self.reporter.resume(marker["as_of_ms"])
        return True

    def replace(self, blocks: Blocks) -> None:
        """Start with nothing, and let the next `changes` take these records away."""
        self._cut_off = dict.fromkeys(name for name in {**blocks.rows, **blocks.cut_off} if name != MARKER)

    def report(self) -> list[SlotFigures]:
        """Forget what can no longer change, and report what has changed."""
        last_day = self.as_of_ms // DAY_MS
        horizon_days = self.declared.maturities_days[-1]
        # A day of grace, as partitions of the join come at their own pace.
        first_day = last_day - horizon_days - 1
        if first_day > self.board.first_day:
            self.board.forget(first_day)
        return self.reporter.report(self.as_of_ms)

    def changes(self, offsets: Mapping[str, int]) -> dict[bytes, bytes | None]:
        """Return what makes the stored state this one, valid for these offsets; None where a record must go."""
        fresh = changed_rows(self.board)
        written = dict(self._cut_off)
        for name in self.stored:
            if key_of(name) in fresh or is_forgotten(key_of(name), self.board.first_day):
                written[name] = None
        for key, value in fresh.items():
            if value is not None:
                written.update(split(key, value, _MOST_BYTES))
        self._storing = {name: None for name in {**self.stored, **written} if written.get(name, b"") is not None}
        marker = {
            "fingerprint": self.declared.fingerprint,
            "offsets": dict(offsets),
            "as_of_ms": self.reporter.as_of_ms,
            "first_day": self.board.first_day,
            "newest_label_ms": self.newest_label_ms,
            "rows": len(self._storing),
            "told": {
                partition: encode_report(ledger_reports).decode()
                for partition, ledger_reports in self.ledger_reports.items()
            },
        }
        return {**written, MARKER: json.dumps(marker).encode()}

    def mark_stored(self) -> None:
        """Mark the last `changes` as committed."""
        self.stored, self._cut_off = self._storing, {}
        self.board.mark_clean()
