"""Snapshot and restore of a board as rows, of which only changed ones are stored; equal boards give equal rows.

::

    c + cohort      sums, and the arrays they measure
    e + day         what is remembered of the day's events
    p + who, day    predictions counted

Values are deflated: most of their bytes are small numbers.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from millstream.core.drift.slot_counts import whole_number
from millstream.core.metrics import DAY_MS
from millstream.core.quality.board import Board, Key, PredictionGroup, Series
from millstream.core.quality.cohort import Cohort
from millstream.core.quality.part import PredictionCounts
from millstream.core.quality.score_cells import Counts

LAYOUT: Final = 3
"""Raised when rows change their meaning."""

_COHORT, _EVENTS, _PREDICTED = b"c", b"e", b"p"
_LEVEL: Final = 1
_HEAD_BYTES: Final = 4


def rows(board: Board) -> dict[bytes, bytes]:
    """Return every row of a settled board."""
    event_days = np.unique(board.remembered.days()).tolist()
    return _rows(board, board.cohorts, event_days, board.predicted)


def changed_rows(board: Board) -> dict[bytes, bytes | None]:
    """Return what changed of a settled board since `Board.mark_clean`; None where there is nothing any more."""
    gone: dict[bytes, bytes | None] = dict.fromkeys(
        _cohort_key(key) for key in board.changed if key not in board.cohorts
    )
    kept = [key for key in board.changed if key in board.cohorts]
    return gone | _rows(board, kept, board.changed_days, board.changed_predicted)


def is_forgotten(key: bytes, first_day: int) -> bool:
    """Return whether a row is of a day before the first that is kept."""
    kind, text = key[:1], json.loads(key[1:])
    day = text if kind == _EVENTS else text[1]
    return bool(day < first_day)


def load(board: Board, stored: Mapping[bytes, bytes]) -> None:
    """Put stored rows into an empty board.

    Raises
    ------
    ValueError, zlib.error
        If a row is none.
    """
    width = board.remembered.width
    ids, remembered = [np.zeros(0, dtype=np.int64)], [np.zeros((0, width), dtype=np.int64)]
    for key, value in stored.items():
        text = json.loads(key[1:])
        if key[:1] == _COHORT:
            series, *rest = text
            board.cohorts[Key(Series(*series), *rest)] = _cohort(value)
        elif key[:1] == _EVENTS:
            flat = np.frombuffer(zlib.decompress(value), dtype="<i8").astype(np.int64).reshape(1 + width, -1)
            ids.append(flat[0])
            remembered.append(flat[1:].T)
        else:
            source, day = text
            board.predicted[source, day] = decode_predicted(value, day)
    board.remembered.restore(np.concatenate(ids), np.concatenate(remembered))


def encode_predicted(counts: Mapping[PredictionGroup, PredictionCounts]) -> bytes:
    """Return one day's counts of predictions as JSON; equal counts give equal bytes."""
    rows = [[*seen[:3], seen.group, count.called, count.uncalled] for seen, count in sorted(counts.items())]
    return json.dumps(rows, ensure_ascii=False).encode()


def decode_predicted(value: bytes, day: int) -> dict[PredictionGroup, PredictionCounts]:
    """Return what `encode_predicted` wrote of that day.

    Raises
    ------
    ValueError, TypeError
        If it is none, with text that is no UTF-8 or numbers that are no counts.
    """
    rows = json.loads(value)
    return {
        PredictionGroup(_text(model), whole_number(version), _text(arm), day, _text(group)): PredictionCounts(
            whole_number(called), whole_number(uncalled)
        )
        for model, version, arm, group, called, uncalled in rows
    }


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    value.encode()  # JSON can hold halves of surrogate pairs, which can be written nowhere
    return value


def _rows(
    board: Board, keys: Iterable[Key], event_days: Iterable[int], sources: Iterable[tuple[int, int]]
) -> dict[bytes, bytes]:
    made = {_cohort_key(key): _encoded(board.cohorts[key]) for key in keys}
    for day in event_days:
        ids, remembered = board.remembered.between(day * DAY_MS, (day + 1) * DAY_MS)
        # By column, so that likes are neighbours.
        flat = np.concatenate([ids[:, None], remembered], axis=1).T
        made[_EVENTS + b"%d" % day] = zlib.compress(np.ascontiguousarray(flat, dtype="<i8").tobytes(), _LEVEL)
    for place in sources:
        made[_PREDICTED + json.dumps(place).encode()] = encode_predicted(board.predicted[place])
    return made


def _cohort_key(key: Key) -> bytes:
    return _COHORT + json.dumps(key, ensure_ascii=False).encode()


def _encoded(cohort: Cohort) -> bytes:
    lengths = [len(cohort.ranking.keys), len(cohort.cards.keys)]
    # Text, as JSON readers may take large integers for reals.
    head = json.dumps([cohort.counts, [str(total) for total in cohort.sums], cohort.bins, lengths]).encode()
    arrays = (cohort.ranking.keys, cohort.ranking.counts, cohort.cards.keys, cohort.cards.counts)
    body = b"".join(np.ascontiguousarray(each.T, dtype="<i8").tobytes() for each in arrays)
    return zlib.compress(len(head).to_bytes(_HEAD_BYTES, "little") + head + body, _LEVEL)


def _cohort(value: bytes) -> Cohort:
    data = zlib.decompress(value)
    at = _HEAD_BYTES + int.from_bytes(data[:_HEAD_BYTES], "little")
    counts, sums, bins, (ranked, cards) = json.loads(data[_HEAD_BYTES:at])

    def take(length: int, width: int) -> NDArray[np.int64]:
        nonlocal at
        found = np.frombuffer(data, dtype="<i8", count=length * width, offset=at).reshape(width, length).T
        at += found.nbytes
        return found.astype(np.int64)

    return Cohort(
        tuple(counts),
        tuple(int(total) for total in sums),
        tuple((n, positives, scores) for n, positives, scores in bins),
        Counts(take(ranked, 1), take(ranked, 2)),
        Counts(take(cards, 2), take(cards, 2)),
    )
