"""A board as bytes and back; equal boards give equal bytes."""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from services.core.quality.board import Board, Key, Seen
from services.core.quality.cohort import Cohort
from services.core.quality.figures import Predicted
from services.core.quality.score_cells import Counts

LAYOUT: Final = 1
_HEAD_BYTES: Final = 8


def snapshot(board: Board) -> bytes:
    """Return the board: the length of a JSON head, the head, and after it the arrays it measures, little-endian."""
    arrays: list[NDArray[np.int64]] = []

    def keep(counts: Counts) -> int:
        arrays.extend([counts.keys, counts.counts])
        return len(counts.keys)

    cohorts = [
        [list(key), each.counts, [str(total) for total in each.sums], each.bins, keep(each.ranking), keep(each.cards)]
        for key, each in sorted(board.cohorts.items())
    ]
    event_ids, rows = board.remembered.snapshot()
    arrays += [event_ids[:, None], rows]
    head = {
        "layout": LAYOUT,
        "protocol": board.protocol,
        "maturities_days": board.maturities_days,
        "cohorts": cohorts,
        "predicted": [[*seen, count.called, count.uncalled] for seen, count in sorted(board.predicted.items())],
        "remembered": len(event_ids),
    }
    text = json.dumps(head, ensure_ascii=False).encode()
    return b"".join(
        [len(text).to_bytes(_HEAD_BYTES, "little"), text, *(each.astype("<i8").tobytes() for each in arrays)]
    )


def restore(data: bytes) -> Board:
    """Return the board that `snapshot` wrote.

    Raises
    ------
    ValueError
        If the bytes are of another layout or cut short.
    """
    end = _HEAD_BYTES + int.from_bytes(data[:_HEAD_BYTES], "little")
    head: dict[str, Any] = json.loads(data[_HEAD_BYTES:end])
    if head["layout"] != LAYOUT:
        raise ValueError(f"the snapshot has layout {head['layout']}, this release reads {LAYOUT}: rebuild the board")
    board = Board(tuple(head["maturities_days"]), head["protocol"])
    at = end

    def take(length: int, width: int) -> NDArray[np.int64]:
        nonlocal at
        found = np.frombuffer(data, dtype="<i8", count=length * width, offset=at).reshape(length, width)
        at += found.nbytes
        return found.astype(np.int64)

    for key, counts, sums, bins, ranking, cards in head["cohorts"]:
        board.cohorts[Key(*key)] = Cohort(
            tuple(counts),
            tuple(int(total) for total in sums),
            tuple((n, positives, scores) for n, positives, scores in bins),
            Counts(take(ranking, 1), take(ranking, 2)),
            Counts(take(cards, 3), take(cards, 2)),
        )
    for *seen, called, uncalled in head["predicted"]:
        board.predicted[Seen(*seen)] = Predicted(called, uncalled)
    length = head["remembered"]
    board.remembered.restore(take(length, 1)[:, 0], take(length, 4))
    return board
