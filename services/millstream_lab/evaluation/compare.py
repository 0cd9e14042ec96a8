"""Comparison of online models on replayed history, with labels as late as they would be live."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from millstream.adapters.models.river_model import floats
from millstream.adapters.models.river_pipelines import OnlineModel
from millstream.core.batch import Array, Batch, Mask
from millstream.core.metrics import evaluate
from millstream.stages.learn.learner import Learner

Floats = NDArray[np.float64]
Times = NDArray[np.int64]

HOUR_MS: Final = 3_600_000
_KEY: Final = b"a comparison keeps nothing"


@dataclass(frozen=True, slots=True)
class History:
    """Events with features as served, in order of event time.

    Parameters
    ----------
    batch : Batch
        At least the features the models read.
    times_ms, known_at_ms : int64 ndarray of shape (n,)
        When each event happened, ascending, and when its label became known; milliseconds since the epoch.
    labels : bool ndarray of shape (n,)
    groups : ndarray of shape (n,)
        What an investigator looks at per day: cards.
    """

    batch: Batch
    times_ms: Times
    known_at_ms: Times
    labels: Mask
    groups: Array


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one online model did.

    Parameters
    ----------
    scores : float64 ndarray of shape (n,)
        As served: by what was learnt when the event happened; NaN before ``from_ms``.
    metrics : mapping of str to float
        Of the served scores, as `millstream.core.metrics.evaluate`.
    learn_us : float
        Per example: predict and learn, CPU time.
    score_us : float
        Per event served, CPU time.
    snapshot_bytes : int
        At the end.
    """

    scores: Floats
    metrics: Mapping[str, float]
    learn_us: float
    score_us: float
    snapshot_bytes: int


def serve_delayed(
    declared: OnlineModel,
    history: History,
    from_ms: int,
    step_ms: int = HOUR_MS,
    progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Let a model learn each example when its label is known, and answer each event with what it knows by then.

    Parameters
    ----------
    from_ms : int
        Serve events from then on, after learning what was known; milliseconds since the epoch.
    step_ms : int
        The scorer takes up what was learnt this often.
    progress : callable, optional
        Called after each step with the number of events passed.
    """
    learner = Learner(declared)
    order = np.argsort(history.known_at_ms, kind="stable")
    known_at_ms = history.known_at_ms[order]
    taught = history.batch.with_columns({"label": history.labels.astype(np.float64)})
    scores = np.full(history.batch.length, np.nan)
    learn_s = score_s = 0.0
    learnt = 0
    start = int(np.searchsorted(history.times_ms, from_ms))
    now_ms = from_ms
    while start < history.batch.length:
        ready = int(np.searchsorted(known_at_ms, now_ms, side="right"))
        rows = order[learnt:ready]
        began_s = time.process_time()
        learner.learn(taught.take(rows), "label", "history", np.arange(learnt, ready))
        learn_s += time.process_time() - began_s
        learnt = ready
        end = int(np.searchsorted(history.times_ms, now_ms + step_ms))
        if end > start:
            began_s = time.process_time()
            scores[start:end] = learner.scorer().score(history.batch.take(np.arange(start, end)))
            score_s += time.process_time() - began_s
        start, now_ms = end, now_ms + step_ms
        if progress is not None:
            progress(end)
    served = ~np.isnan(scores)
    metrics = evaluate(history.labels[served], scores[served], history.groups[served], history.times_ms[served])
    size = len(learner.snapshot(_KEY))
    return Outcome(scores, metrics, 1e6 * learn_s / max(learnt, 1), 1e6 * score_s / max(int(served.sum()), 1), size)


@dataclass(frozen=True, slots=True)
class Pace:
    """Examples per CPU second on the same rows in the same run, each in its quickest round.

    Parameters
    ----------
    evaluated_per_s : float
        River's own loop, ``progressive_val_score`` with a log-loss, a dict per row made of an array, as its data sets
        make them of a file.
    bare_per_s : float
        Nothing but predict and learn, a dict per row made of an array in the plainest way.
    ready_per_s : float
        The same with all dicts made before the clock starts.
    learner_per_s : float
        The learner: rows made of columns, nulls left out, log-loss, Brier score, AUC and offsets kept.
    """

    evaluated_per_s: float
    bare_per_s: float
    ready_per_s: float
    learner_per_s: float

    def slower_than(self, baseline_per_s: float) -> float:
        """Return how much of a pace the learner costs, e.g. 0.1 for a tenth; negative if it is quicker."""
        return 1 - self.learner_per_s / baseline_per_s


def pace(
    declared: OnlineModel,
    batch: Batch,
    labels: Mask,
    rounds: int = 7,
    batch_rows: int = 500,
    progress: Callable[[int], None] | None = None,
) -> Pace:
    """Measure the learner against River's own loop and against the barest ones.

    All take turns, and CPU time is taken, so that what else the machine does falls on all alike.

    Parameters
    ----------
    batch : Batch
        What the model reads, the champion's score included if it does.
    labels : bool ndarray of shape (n,)
    batch_rows : int
        Examples in one micro-batch of the learner.
    progress : callable, optional
        Called after each round with how many are done.
    """
    from river import evaluate as river_evaluate
    from river import metrics

    columns = floats(batch, declared.features)
    matrix = np.column_stack(list(columns.values()))
    names = list(columns)
    ready = [dict(zip(names, row, strict=True)) for row in matrix.tolist()]
    truths: list[bool] = labels.tolist()
    taught = batch.with_columns({"label": labels.astype(np.float64)})
    cuts = [taught.take(np.arange(at, min(at + batch_rows, batch.length))) for at in range(0, batch.length, batch_rows)]

    def evaluated() -> None:
        dataset: Any = zip(made(), truths, strict=True)
        metric = metrics.LogLoss()  # type: ignore[no-untyped-call]
        river_evaluate.progressive_val_score(dataset, declared.blank(), metric)

    def made() -> Iterator[dict[str, float]]:
        for row in matrix:
            yield dict(zip(names, row.tolist(), strict=True))

    def bare(rows: Iterable[dict[str, float]]) -> None:
        model = declared.blank()
        for row, truth in zip(rows, truths, strict=True):
            model.predict_proba_one(row)
            model.learn_one(row, truth)

    def ours() -> None:
        learner, at = Learner(declared), 0
        for cut in cuts:
            learner.learn(cut, "label", "pace", np.arange(at, at + cut.length))
            at += cut.length

    runs: tuple[Callable[[], None], ...] = (evaluated, lambda: bare(made()), lambda: bare(ready), ours)
    taken_s: list[list[float]] = [[] for _ in runs]
    for done in range(1, rounds + 1):
        for taken, run in zip(taken_s, runs, strict=True):
            began_s = time.process_time()
            run()
            taken.append(time.process_time() - began_s)
        if progress is not None:
            progress(done)
    return Pace(*(batch.length / min(taken) for taken in taken_s))
