"""Records of the labels topic as statements about events: label or retraction, source and time."""

from __future__ import annotations

import re

import numpy as np

from millstream.core.batch import Array, Batch, Rejection
from millstream.core.ledger.label_sets import KINDS, LATEST_MS, RETRACTION, LabelSets, source_hashes, stamps
from millstream.runtime.flow import Flow

# The one way a whole number is written as an event id; a line per id, so that one call judges a micro-batch.
_WHOLE_ID = r"(?:0|-?[1-9][0-9]{0,18})"
_ALL_WHOLE = re.compile(rf"(?:{_WHOLE_ID}\n)*")
_ONE_WHOLE = re.compile(_WHOLE_ID)


def meaningful(labels: Flow, whole_ids: bool = False) -> Flow:
    """Return the labels that can be believed or taken back.

    Parameters
    ----------
    whole_ids : bool
        Events are identified by whole numbers, so that a label with any other id would never meet one.
    """
    labels = _with_whole_ids(labels) if whole_ids else labels
    batch = labels.batch
    kinds = batch.columns["kind"].tolist()
    unknown = np.fromiter((kind not in KINDS for kind in kinds), np.bool_, batch.length)
    stated = batch.columns["kind"] != KINDS[RETRACTION]
    missing = batch.is_null("label") & stated
    between = stated & ~missing & ~np.isin(batch.columns["label"], (0.0, 1.0))
    known_at_ms = batch.columns["known_at_ms"]
    outside = (known_at_ms < 0) | (known_at_ms > LATEST_MS)
    rejections = [
        Rejection(row, "no-label", "label", "label is null; allowed: 0 or 1 unless the kind is retraction")
        for row in np.flatnonzero(missing).tolist()
    ]
    rejections += [
        Rejection(row, "not-allowed", "label", f"label is {batch.columns['label'][row]}; allowed: 0 or 1")
        for row in np.flatnonzero(between).tolist()
    ]
    rejections += [
        Rejection(row, "range", "known_at_ms", f"known_at_ms is {known_at_ms[row]}; allowed: 0 to {LATEST_MS}")
        for row in np.flatnonzero(outside & ~missing & ~between).tolist()
    ]
    rejections += [
        Rejection(row, "not-allowed", "kind", f"kind is {kinds[row]!r:.60}; allowed: {', '.join(KINDS)}")
        for row in np.flatnonzero(unknown & ~missing & ~between & ~outside).tolist()
    ]
    return labels.keep(~(missing | between | outside | unknown), rejections)


def _with_whole_ids(labels: Flow) -> Flow:
    ids: list[str] = labels.batch.columns["event_id"].tolist()
    lines = "\n".join([*ids, ""])
    if lines.count("\n") == len(ids) and _ALL_WHOLE.fullmatch(lines):
        return labels
    sound = np.fromiter((_ONE_WHOLE.fullmatch(each) is not None for each in ids), np.bool_, len(ids))
    rejections = [
        Rejection(
            row, "event-id", "event_id", f"event_id is {ids[row]!r}; events have whole numbers, written as 9000002"
        )
        for row in np.flatnonzero(~sound).tolist()
    ]
    return labels.keep(sound, rejections)


def statements(owners: Array, batch: Batch) -> tuple[LabelSets, dict[int, str]]:
    """Return the statements of label rows, and the names of their sources by hash."""
    names = list(dict.fromkeys(batch.columns["source"].tolist()))
    hashes = source_hashes(names).tolist()
    code = dict(zip(names, hashes, strict=True))
    kind = {name: position for position, name in enumerate(KINDS)}
    n = len(owners)
    sources = np.fromiter((code[name] for name in batch.columns["source"].tolist()), np.int64, n)
    kinds = np.fromiter((kind[name] for name in batch.columns["kind"].tolist()), np.int64, n)
    made = stamps(batch.columns["known_at_ms"], kinds, batch.columns["label"] == 1)
    return LabelSets(owners, sources, made), dict(zip(hashes, names, strict=True))
