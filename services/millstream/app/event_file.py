"""Events of a file as batches of the contract, with their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millstream.adapters.files.ingest import BadRow
    from millstream.adapters.files.tabular import Declared
    from millstream.app.assembly import Assembly
    from millstream.app.late_labels import Labels
    from millstream.app.replay_labels import Late
    from millstream.core.batch import Batch
    from millstream.core.ledger.label_timeline import LabelTimeline


def events_of(
    assembly: Assembly,
    path: Path,
    mapping: dict[str, str],
    start_ms: int | None = None,
    end_ms: int | None = None,
    late: Late | None = None,
    declared: Declared | None = None,
    fault: Callable[[BadRow], None] = lambda _: None,
) -> Iterator[tuple[Batch, Labels | LabelTimeline | None, int]]:
    """Yield the file's events in file order, their labels, and how many rows could not be read as events.

    Rows outside [start_ms, end_ms) of event time are passed over.

    Parameters
    ----------
    fault : callable
        Takes each fault of a row that could not be read.

    Raises
    ------
    Misconfigured
        The file has no such label column, or it holds something else than 0, 1, true, false and null.
    """
    import numpy as np

    from millstream.adapters.files.ingest import bad_row, columns_for
    from millstream.adapters.files.tabular import NOTHING_DECLARED, open_table
    from millstream.core.avro.convert import to_batch

    table = open_table(path, declared or NOTHING_DECLARED)
    contract = assembly.contract
    columns = columns_for(table, contract, mapping)
    wanted = list(columns.values()) + (late.columns if late is not None else [])
    for chunk in table.chunks(list(dict.fromkeys(wanted))):
        batch, rejections = to_batch(contract.schema.fields, columns, chunk.frame, table.reading)
        times_ms = batch.columns[contract.event_time]
        good = np.ones(batch.length, dtype=np.bool_)
        unread = {each.row for each in chunk.rejections}
        faults = [*chunk.rejections, *(each for each in rejections if each.row not in unread)]
        for each in sorted(faults, key=lambda each: each.row):
            fault(bad_row(chunk, each, columns))
        bad = {each.row for each in faults}
        good[list(bad)] = False
        if start_ms is not None:
            good &= times_ms >= start_ms
        if end_ms is not None:
            good &= times_ms < end_ms
        labels = None
        if late is not None:
            ids = batch.columns[contract.event_id]
            labels = late.of(chunk.frame, ids, times_ms, table.reading).take(np.flatnonzero(good))
        yield (batch if good.all() else batch.take(good)), labels, len(bad)
