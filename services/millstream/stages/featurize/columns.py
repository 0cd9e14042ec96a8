"""Features of a window store as columns of the flow and rows of the online view."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Array, Mask, Rows
from millstream.core.declaration import View
from millstream.core.windows.state import Results
from millstream.ports import ViewRows
from millstream.runtime.flow import BEYOND

logger = logging.getLogger(__name__)

_WHOLE = frozenset({"int64", "int32"})


def view_rows(views: Sequence[View], keys: Array, results: Results, feature_time_us: Rows) -> Iterable[ViewRows]:
    """Return one `ViewRows` per view that is online; columns of ``results`` are the views' features in order."""
    at = 0
    for view in views:
        end = at + len(view.aggregates)
        if view.online:
            wholes = results.wholes[:, at:end] if results.wholes.shape[1] else None
            yield ViewRows(view.name, keys, results.reals[:, at:end], feature_time_us, wholes)
        at = end


class FeatureColumns:
    """The features of some views for the rows of a micro-batch.

    Parameters
    ----------
    views : sequence of View
        In the order of a store's features.
    """

    def __init__(self, views: Sequence[View]) -> None:
        self._features = [
            (column, aggregate.dtype)
            for view in views
            for column, aggregate in zip(view.columns, view.aggregates, strict=True)
        ]
        self._reported: set[str] = set()

    def columns(self, results: Results) -> tuple[dict[str, Array], dict[str, Mask]]:
        """Return the columns, int64 or float64, and their null masks."""
        columns: dict[str, Array] = {}
        nulls: dict[str, Mask] = {}
        for position, (column, dtype) in enumerate(self._features):
            values = results.reals[:, position]
            missing = np.isnan(values)
            if missing.any():
                nulls[column] = missing
            if dtype == "float32":
                # What the model reads is what `scored` holds, and what it is trained on.
                columns[column] = values.astype(np.float32).astype(np.float64)
            elif dtype not in _WHOLE:
                columns[column] = values
            elif results.wholes.shape[1]:
                columns[column] = results.wholes[:, position]
            else:
                columns[column] = np.where(missing, 0, values).astype(np.int64)
        return columns, nulls

    def beyond(self, counts: NDArray[np.int64]) -> dict[str, int]:
        """Return how many values of which feature its declared type cannot hold; log the first of each feature."""
        found = {}
        for position in np.flatnonzero(counts).tolist():
            column, dtype = self._features[position]
            found[f"{BEYOND}{column}"] = int(counts[position])
            if column not in self._reported:
                self._reported.add(column)
                logger.warning(
                    "%s: a value is no %s and is null, the event is scored without it; millstream_feature_nulls_total "
                    "counts such values. Declare a type that holds them",
                    column,
                    dtype,
                )
        return found
