"""The declared rule that answers without a model."""

from __future__ import annotations

import logging

import numpy as np
import polars as pl
from numpy.typing import NDArray

from millstream.core.batch import Batch
from millstream.core.declaration import Service
from millstream.errors import Misconfigured

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
        """Return the rule's score of each row, clipped to [0, 1]; 0 where the rule gives null, NaN or an error.

        A row on which the rule fails does not change the score of any other; it is logged and counted in ``failures``.

        Returns
        -------
        float64 ndarray of shape (batch.length,)

        Raises
        ------
        Misconfigured
            If a column is missing or has a type the expression cannot work on, or the score of a row depends on other
            rows.
        """
        frame = self._frame(batch)
        if not self._checked:
            self._check(frame)
            self._checked = True
        try:
            return self._scores(frame, batch.length)
        except pl.exceptions.PolarsError as error:
            failed = str(error)
        scores, failures = np.zeros(batch.length, dtype=np.float64), 0
        for row in range(batch.length):
            try:
                scores[row] = self._scores(frame.slice(row, 1), 1)[0]
            except pl.exceptions.PolarsError as error:
                failures, failed = failures + 1, str(error)
        self.failures += failures
        logger.error(
            "baseline rule %r failed on %s of %s events, scored 0: %s", self.sql, failures, batch.length, failed
        )
        return scores

    def _scores(self, frame: pl.DataFrame, rows: int) -> NDArray[np.float64]:
        given = frame.select(self._rule).to_series()
        scores = np.clip(np.nan_to_num(given.fill_null(0.0).to_numpy(), nan=0.0), 0.0, 1.0)
        # An expression of constants only gives one row.
        return scores if len(scores) == rows else np.full(rows, scores[0])

    def _check(self, frame: pl.DataFrame) -> None:
        try:
            frame.clear().select(self._rule)
        except pl.exceptions.PolarsError as error:
            raise self._wrong(str(error)) from error
        if not self.columns:
            return
        try:
            together, alone = (
                self._scores(frame, frame.height),
                [self._scores(frame.slice(row, 1), 1)[0] for row in range(min(2, frame.height))],
            )
        except pl.exceptions.PolarsError:
            return  # fails on these values: no reason to stop
        if together[: len(alone)].tolist() != alone:
            raise self._wrong("a row's score depends on other rows; use no aggregate and no window function")

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
