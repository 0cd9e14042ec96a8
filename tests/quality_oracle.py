"""Quality recomputed in one go from what was scored and what is believed of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from millstream.app.assembly import Assembly
from millstream.app.label_stages import quality_stage
from millstream.app.measuring import counted
from millstream.core.batch import Batch
from millstream.core.quality.board import Board
from millstream.core.quality.report import Reporter
from millstream.core.quality.topic import as_batch, with_gaps
from statements import Said, history

VALUES = ("value", "lower", "upper", "mature", "coverage", "examples", "positives")
Figures = dict[str, tuple[object, ...]]


def recomputed(
    assembly: Assembly,
    scored: Batch,
    said: Sequence[Said],
    label_at: Mapping[int, tuple[float, int]],
    as_of_ms: int,
) -> Figures:
    """Return the figures by key; ``label_at`` holds the present label and when it became known by event."""
    ids = scored.columns["transaction_id"].tolist()
    about = {each[0] for each in said}
    rows = np.array([i for i, event in enumerate(ids) if event in about])
    final = [label_at.get(ids[row], (None, 0)) for row in rows.tolist()]
    histories = [json.dumps(history(said, ids[row])) for row in rows.tolist()]
    examples = scored.take(rows).with_columns(
        {
            "event_id": np.array([str(ids[row]) for row in rows.tolist()], dtype=object),
            "label": np.array([0.0 if label is None else label for label, _ in final]),
            "label_known_at_ms": np.array([at_ms for _, at_ms in final]),
            "revision": np.ones(len(rows), dtype=np.int64),
            "belief_history": np.array(histories, dtype=object),
        },
        {"label": np.array([label is None for label, _ in final])},
    )
    board = Board(quality_stage(assembly, assembly.resolver()).declared.maturities_days)
    board.update(assembly.measured.examples(examples))
    every = counted(assembly.measured)(scored)
    for day in {seen.day for seen in every}:
        board.set_predicted(0, day, {seen: count for seen, count in every.items() if seen.day == day})
    return by_key(as_batch(with_gaps(Reporter(board).report(as_of_ms)), as_of_ms))


def by_key(batch: Batch) -> Figures:
    """Return what figures say, but for when it was said and what is empty."""
    nulls = {name: batch.is_null(name) for name in VALUES}
    rows = zip(*(batch.columns[name].tolist() for name in VALUES), strict=True)
    return {
        key: tuple(None if nulls[name][i] else value for name, value in zip(VALUES, row, strict=True))
        for i, (key, row) in enumerate(zip(batch.columns["key"].tolist(), rows, strict=True))
        if row[VALUES.index("examples")]
    }
