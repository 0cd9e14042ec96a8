"""River models on columns: batches in, scores out; linear models compiled."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from millstream.adapters.models.river_header import Header
from millstream.adapters.models.river_pipelines import CHAMPION_LOGIT, CHAMPION_SCORE, OnlineModel
from millstream.adapters.models.river_snapshot import unseal
from millstream.core.batch import Batch, Rows
from millstream.core.models.linear import Linear, logits
from millstream.core.text import as_text
from millstream.errors import Refused

Floats = NDArray[np.float64]
Row = dict[str, float]

SHARED: Final = ""
"""The segment of every event whose own segment has no model: nulls, and what came after the bound was reached."""


_BLOCK_ROWS: Final = 64  # rows made at once, so that none are made in vain when time is short


def floats(batch: Batch, features: Sequence[str]) -> dict[str, Floats]:
    """Return the named columns as float64, NaN at nulls; the champion's log-odds are made of its score.

    Raises
    ------
    Refused
        If one is not among the columns, or not a number.
    """
    try:
        return {
            name: logits(batch.as_floats(CHAMPION_SCORE)) if name == CHAMPION_LOGIT else batch.as_floats(name)
            for name in features
        }
    except KeyError as error:
        raise Refused(f"the online model reads {error.args[0]!r}, which is not in the batch") from error
    except (TypeError, ValueError) as error:
        raise Refused(f"a feature of the online model is not a number: {error}") from error


def rows(columns: Mapping[str, Floats]) -> Iterator[Row]:
    """Yield a dict per row, features in the columns' order.

    A value that is not finite is left out, which is how River sees a missing feature. Scalers then do not move, linear
    models take the feature at its mean, and trees send the row down the branch most rows took. Infinities are left out
    too: a single one would turn a running mean into NaN permanently.
    """
    names = list(columns)
    matrix = np.column_stack([columns[name] for name in names]) if names else np.empty((0, 0))
    missing: dict[int, list[str]] = {}
    for at, column in zip(*(each.tolist() for each in np.nonzero(~np.isfinite(matrix))), strict=True):
        missing.setdefault(at, []).append(names[column])
    made = (dict(zip(names, values)) for values in matrix.tolist())  # noqa: B905 strict costs a tenth; shapes agree
    if not missing:
        return made
    return ({name: row[name] for name in names if name not in missing.get(at, ())} for at, row in enumerate(made))


def positive(answer: Mapping[Any, float]) -> float:
    """Return the score in what River's ``predict_proba_one`` answers: NaN if it has no opinion yet."""
    return float(answer.get(True, 0.0)) if answer else math.nan


def segments_of(batch: Batch, column: str | None) -> list[str]:
    """Return the segment of each row as text, `SHARED` for nulls and where there is no such division."""
    if column is None:
        return [SHARED] * batch.length
    if column not in batch.columns:
        raise Refused(f"the online model is divided by {column!r}, which is not in the batch")
    values = [text.decode() if isinstance(text, bytes) else str(text) for text in as_text(batch.columns[column])]
    for row in np.flatnonzero(batch.is_null(column)).tolist():
        values[row] = SHARED
    return values


class Models:
    """One River model per segment, made when the segment first teaches, and one that the rest share.

    The first ``max_segments`` segments to teach, in the total order of the examples, get a model of their own; all
    later ones teach the shared model. So what has a model never depends on batching or restarts.
    """

    def __init__(self, declared: OnlineModel, own: Mapping[str, Any] | None = None) -> None:
        self._declared = declared
        self.fresh = declared.blank()
        self.by_segment: dict[str, Any] = dict(own or {})

    def to_teach(self, segment: str) -> Any:
        """Return the model that an example of this segment teaches."""
        model = self.by_segment.get(segment)
        if model is None:
            segment = self.answering(segment)
            model = self.by_segment.get(segment)
            if model is None:
                model = self.by_segment[segment] = self._declared.blank()
        return model

    def to_ask(self, segment: str) -> Any:
        """Return the model that answers for this segment, as it would if the event taught next."""
        return self.by_segment.get(self.answering(segment), self.fresh)

    def answering(self, segment: str) -> str:
        """Return the segment whose model answers for this one."""
        return segment if segment in self.by_segment or self._room() else SHARED

    def _room(self) -> bool:
        return len(self.by_segment) - (SHARED in self.by_segment) < self._declared.max_segments


class OnlineScorer:
    """Answers micro-batches with a snapshot; it never learns.

    Attributes
    ----------
    name : str
        Of the online model.
    version : int
        Examples the snapshot has learnt.
    vectorised : bool
        All its models are scored as columns, a few ns per row and feature; else by row, at River's pace.
    """

    def __init__(self, declared: OnlineModel, models: Models, version: int) -> None:
        self.name = declared.name
        self.version = version
        self._declared = declared
        self._models = models
        self._compiled = {name: linear(model, declared.features) for name, model in models.by_segment.items()}
        self._fresh = linear(models.fresh, declared.features)
        self.vectorised = None not in self._compiled.values()
        self._order = np.random.default_rng(0)

    @staticmethod
    def load(snapshot: bytes, declared: OnlineModel, key: bytes) -> OnlineScorer:
        """Check a snapshot and make it answer.

        Raises
        ------
        Refused
            As `millstream.adapters.models.river_snapshot.unseal`; whatever answered before goes on.
        """
        header, models = open_snapshot(snapshot, declared, key)
        return OnlineScorer(declared, Models(declared, models), header.examples)

    def score(self, batch: Batch) -> Floats:
        """Return the positive class's probability, float64 of shape (n,) in [0, 1]; NaN where there is no opinion yet.

        Raises
        ------
        Refused
            If a feature is not among the columns or not a number, or River fails on a row.
        """
        return self.score_within(batch, None)[0]

    def score_within(self, batch: Batch, spare: Callable[[], bool] | None) -> tuple[Floats, int]:
        """Return scores as `score`, and how many rows got none because there was no time.

        Parameters
        ----------
        spare : callable or None
            Asked before each row that is scored by itself whether there is time for it; rows are then taken in random
            order, so that those left out are a fair sample. Models that are scored as columns are not held up.
        """
        columns = floats(batch, self._declared.features)
        scores = np.full(batch.length, np.nan)
        slow: dict[int, Any] = {}
        for name, places in self._by_model(batch).items():
            compiled = self._compiled.get(name, self._fresh)
            if compiled is None:
                slow |= dict.fromkeys(places.tolist(), self._models.to_ask(name).predict_proba_one)
                continue
            part = columns if len(places) == batch.length else {key: each[places] for key, each in columns.items()}
            scores[places] = compiled.predict(part)
        if not slow:
            return scores, 0
        order = np.array(sorted(slow) if spare is None else self._order.permutation(list(slow)), dtype=np.int64)
        return scores, self._by_row(columns, order, slow, scores, spare)

    def _by_row(
        self,
        columns: Mapping[str, Floats],
        order: Rows,
        predict: Mapping[int, Any],
        scores: Floats,
        spare: Callable[[], bool] | None,
    ) -> int:
        """Fill in the scores of these places; return how many were left out."""
        done = 0
        try:
            for start in range(0, len(order), _BLOCK_ROWS):
                places = order[start : start + _BLOCK_ROWS]
                taken = {name: values[places] for name, values in columns.items()}
                for place, row in zip(places.tolist(), rows(taken), strict=True):
                    if spare is not None and not spare():
                        return len(order) - done
                    scores[place] = positive(predict[place](row))
                    done += 1
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise Refused(f"the declared pipeline fails on an event ({type(error).__name__}: {error})") from error
        return 0

    def _by_model(self, batch: Batch) -> dict[str, Rows]:
        if self._declared.segment is None:
            return {SHARED: np.arange(batch.length)}
        by_model: dict[str, list[int]] = {}
        for row, segment in enumerate(segments_of(batch, self._declared.segment)):
            by_model.setdefault(self._models.answering(segment), []).append(row)
        return {name: np.array(places, dtype=np.int64) for name, places in by_model.items()}


def open_snapshot(snapshot: bytes, declared: OnlineModel, key: bytes) -> tuple[Header, dict[str, Any]]:
    """Check a snapshot against the running declaration and return its header and models by segment.

    Raises
    ------
    Refused
        Naming what does not fit.
    """
    header, models = unseal(snapshot, declared.header(0, {}, {}), declared.allowed, key)
    kind = type(declared.fresh)
    if not isinstance(models, dict) or any(type(model) is not kind for model in models.values()):
        raise Refused(f"online model snapshot is refused: its body is no dict of {kind.__name__}")
    return header, models


def linear(model: Any, features: Sequence[str]) -> Linear | None:
    """Return a model as weights, or None where that would not be what it answers.

    Compiled are ``StandardScaler`` and ``MinMaxScaler`` without a window, or no scaler, before ``LogisticRegression``,
    ``Perceptron``, ``PAClassifier`` or ``ALMAClassifier``.
    """
    from river import compose, linear_model, optim

    steps = list(model.steps.values()) if type(model) is compose.Pipeline else [model]
    *scalers, last = steps
    if len(scalers) > 1:
        return None
    if type(last) in (linear_model.LogisticRegression, linear_model.Perceptron):
        if type(last.loss).mean_func is not optim.losses.BinaryLoss.mean_func:
            return None
        weights, intercept = last.weights, last.intercept
    elif type(last) is linear_model.PAClassifier:
        weights, intercept = last.weights, last.intercept
    elif type(last) is linear_model.ALMAClassifier:
        weights, intercept = last.w, 0.0
    else:
        return None
    ranges = _ranges(scalers[0], features) if scalers else ((0.0,) * len(features), (1.0,) * len(features))
    if ranges is None:
        return None
    shift, scale = ranges
    weight = tuple(float(weights.get(name, 0.0)) for name in features)
    return Linear(tuple(features), shift, scale, weight, float(intercept))


def _ranges(scaler: Any, features: Sequence[str]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return what a scaler subtracts and divides by, 0 where it answers 0; None if it is not one of those two."""
    from river import preprocessing

    if type(scaler) is preprocessing.StandardScaler and scaler.window_size is None:
        shift = tuple(float(scaler.means.get(name, 0.0)) for name in features)
        if not scaler.with_std:
            return shift, (1.0,) * len(features)
        variances = [float(scaler.vars.get(name, 0.0)) for name in features]
        # Python's power, as River's own; a variance below 0 (rounding) has none
        return None if min(variances) < 0 else (shift, tuple(each**0.5 for each in variances))
    if type(scaler) is preprocessing.MinMaxScaler and scaler.window_size is None:
        if any(name not in scaler.min for name in features):
            return None  # River answers NaN until it has seen the feature
        low = [float(scaler.min[name].get()) for name in features]
        return tuple(low), tuple(float(scaler.max[name].get()) - each for name, each in zip(features, low, strict=True))
    return None
