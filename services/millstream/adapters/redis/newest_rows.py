"""Conflation of online rows: the newest row of each key."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from millstream.core.batch import Array, Rows
from millstream.ports import ViewRows


def newest(rows: Sequence[ViewRows]) -> ViewRows:
    """Return one `ViewRows` of one view with, per key, the row of the largest feature time."""
    keys = np.concatenate([each.keys for each in rows])
    features = np.concatenate([each.features for each in rows])
    times_us = np.concatenate([each.feature_time_us for each in rows])
    kept = _newest_integers(keys, times_us) if keys.dtype == np.int64 else _newest_texts(keys, times_us)
    wholes = [each.wholes for each in rows if each.wholes is not None]
    return ViewRows(
        rows[0].view,
        keys[kept],
        features[kept],
        times_us[kept],
        np.concatenate(wholes)[kept] if len(wholes) == len(rows) else None,
    )


def _newest_integers(keys: Array, times_us: Rows) -> Rows:
    order = np.lexsort((times_us, keys))
    ordered = keys[order]
    last = np.ones(len(order), dtype=np.bool_)
    last[:-1] = ordered[1:] != ordered[:-1]
    return order[last]


def _newest_texts(keys: Array, times_us: Rows) -> Rows:
    # By time, so that a dict's last entry per key is the newest: comparing texts to sort them costs more.
    order = np.argsort(times_us, kind="stable")
    last = dict(zip(keys[order].tolist(), order.tolist(), strict=True))
    return np.fromiter(last.values(), dtype=np.int64, count=len(last))
