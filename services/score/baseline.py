"""The declared rule that answers while no model can."""

from __future__ import annotations

import logging

import numpy as np
import polars as pl
from numpy.typing import NDArray

from services.core.batch import Batch
from services.core.declaration import Service
from services.errors import Misconfigured

logger = logging.getLogger(__name__)


class Baseline:
    """`Service.baseline`, a SQL expression over event fields and features, compiled once.

    Parameters
    ----------
    service : Service
        Whose rule it is.

    Raises
    ------
    Misconfigured
        If the expression cannot be parsed.
    """

    def __init__(self, service: Service) -> None:
        self.sql = service.baseline
        self.failures = 0
        self._service = service.name
        self._checked = False
        try:
            self._rule = pl.sql_expr(service.baseline).alias("score").cast(pl.Float64)
        except pl.exceptions.PolarsError as error:
            raise self._wrong(str(error)) from error
        self.columns: tuple[str, ...] = tuple(sorted(set(self._rule.meta.root_names())))

    def score(self, batch: Batch) -> NDArray[np.float64]:
        """Return the rule's score of each row, clipped to [0, 1]; 0 where the rule gives null.

        A rule that fails on some rows' values scores the whole micro-batch 0, which is logged and counted in
        ``failures``: a rule must not stop a stream.

        Returns
        -------
        float64 ndarray of shape (batch.length,)

        Raises
        ------
        Misconfigured
            If a column is missing or has a type the expression cannot work on.
        """
        frame = self._frame(batch)
        if not self._checked:
            try:
                frame.clear().select(self._rule)
            except pl.exceptions.PolarsError as error:
                raise self._wrong(str(error)) from error
            self._checked = True
        try:
            given = frame.select(self._rule).to_series()
        except pl.exceptions.PolarsError as error:
            self.failures += 1
            logger.error("baseline rule %r failed on a batch of %s, scored 0: %s", self.sql, batch.length, error)
            return np.zeros(batch.length, dtype=np.float64)
        scores = np.nan_to_num(given.fill_null(0.0).to_numpy(), nan=0.0)
        clipped = np.clip(scores, 0.0, 1.0)
        # An expression of constants only gives one row.
        return clipped if len(clipped) == batch.length else np.full(batch.length, clipped[0])

    def _frame(self, batch: Batch) -> pl.DataFrame:
        series = []
        for name in self.columns:
            if name not in batch.columns:
                raise self._wrong(f"there is no column {name!r}; there are: {', '.join(sorted(batch.columns))}")
            values = batch.columns[name]
            text = values.dtype == np.object_
            column = pl.Series(name, values.tolist() if text else values, nan_to_null=not text)
            mask = batch.nulls.get(name)
            if mask is not None and mask.any():
                column = column.set(pl.Series(mask), None)
            series.append(column)
        return pl.DataFrame(series)

    def _wrong(self, problem: str) -> Misconfigured:
        return Misconfigured(f"baseline rule of feature service {self._service!r}, {self.sql!r}: {problem}")
