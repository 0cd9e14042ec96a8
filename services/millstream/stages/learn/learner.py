"""The learner: the single writer of an online model; predicts, then learns each example in one total order."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from millstream.adapters.models.river_model import Models, OnlineScorer, floats, open_snapshot, rows, segments_of
from millstream.adapters.models.river_pipelines import CHAMPION_LOGIT, CHAMPION_SCORE, OnlineModel
from millstream.adapters.models.river_snapshot import seal
from millstream.core.batch import Batch, Rows
from millstream.core.prequential import Prequential
from millstream.errors import Refused, Stop

Floats = NDArray[np.float64]

ONLINE: Final = "online"
CHAMPION: Final = "champion"


@dataclass(frozen=True, slots=True)
class LearningResult:
    """What became of a micro-batch.

    Parameters
    ----------
    scores : float64 ndarray of shape (n,)
        What the model answered before it learnt the example; NaN where it had no opinion, or did not learn.
    taught : bool ndarray of shape (n,)
        False where the label is null or the example had been learnt before.
    """

    scores: Floats
    taught: NDArray[np.bool_]


class FailedExample(Stop):
    """The declared pipeline fails on an example; the models may have taken a part of it in.

    Attributes
    ----------
    offset : int
        Of the example at its source.
    problem : str
        What failed.
    """

    def __init__(self, message: str, offset: int, problem: str) -> None:
        super().__init__(message)
        self.offset = offset
        self.problem = problem


class Learner:
    """Takes examples in order, and is the same after N of them however they were cut into batches and lives.

    Parameters
    ----------
    declared : OnlineModel
        What to learn.

    Attributes
    ----------
    examples : int
        Learnt so far; the version of a snapshot taken now.
    offsets : dict of str to int
        By source, the offset of the next example. What lies below has been learnt and is passed over, so that a replay
        from anywhere earlier changes nothing.
    metrics : dict of str to Prequential
        ``online``, and ``champion`` where its score is an input: both over the same examples, as they were learnt.
    """

    def __init__(self, declared: OnlineModel) -> None:
        self.declared = declared
        self.examples = 0
        self.offsets: dict[str, int] = {}
        self.metrics = {ONLINE: Prequential()}
        if {CHAMPION_SCORE, CHAMPION_LOGIT} & set(declared.features):
            self.metrics[CHAMPION] = Prequential()
        self._models = Models(declared)

    def learn(
        self, batch: Batch, label: str, source: str, offsets: Rows, passed_over: Collection[int] = ()
    ) -> LearningResult:
        """Predict each example, then learn it.

        Parameters
        ----------
        batch : Batch
            Features as served, the label, and the segment column if there is one.
        label : str
            Name of the label's column: 0, 1 or null. A null teaches nothing, so that a retraction can be passed as is;
            nor does an example that replaces one of the same label, known since the same time.
        source : str
            Where the examples come from, e.g. ``examples[0]``.
        offsets : int64 ndarray of shape (n,)
            Of the examples at that source, rising.
        passed_over : collection of int
            Offsets of examples that teach nothing, because the pipeline fails on them.

        Raises
        ------
        Refused
            If a feature, the label or the segment is not in the batch or not a number; nothing has been learnt then.
        FailedExample
            If the pipeline fails on an example. What has been learnt of the batch is not to be kept.
        """
        columns = floats(batch, self.declared.features)
        labels = floats(batch, (label,))[label]
        if not (np.isnan(labels) | (labels == 0) | (labels == 1)).all():
            raise Refused(f"labels must be 0, 1 or null, and {label!r} holds others")
        fresh = offsets >= self.offsets.get(source, 0)
        taught = fresh & ~np.isnan(labels) & ~_unchanged(batch, labels)
        if passed_over:
            taught &= ~np.isin(offsets, list(passed_over))
        places = np.flatnonzero(taught)
        taken = {name: values[places] for name, values in columns.items()}
        truths: list[bool] = (labels[places] == 1).tolist()
        segments = segments_of(batch, self.declared.segment)
        answers: list[float] = []
        answer = answers.append
        models, to_teach, place = self._models.by_segment, self._models.to_teach, 0
        try:
            for place, row, truth in zip(places.tolist(), rows(taken), truths, strict=True):
                model = models.get(segments[place])
                if model is None:
                    model = to_teach(segments[place])
                answered = model.predict_proba_one(row)
                answer(answered.get(True, 0.0) if answered else math.nan)
                model.learn_one(row, truth)
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            problem = f"{type(error).__name__}: {error}"
            raise FailedExample(
                f"the online model fails on the example at {source} offset {offsets[place]} ({problem}); the declared "
                "pipeline must accept the values that its features hold",
                int(offsets[place]),
                problem,
            ) from error
        given, positives = np.array(answers, dtype=np.float64), labels[places] == 1
        # What is no probability is no answer: a single infinity would stay in the running sums permanently.
        given[~((given >= 0) & (given <= 1))] = math.nan
        self.metrics[ONLINE].update(positives, given)
        if CHAMPION in self.metrics:
            self.metrics[CHAMPION].update(positives, floats(batch, (CHAMPION_SCORE,))[CHAMPION_SCORE][places])
        self.examples += len(truths)
        if len(offsets):
            self.offsets[source] = max(int(offsets[-1]) + 1, self.offsets.get(source, 0))
        scores = np.full(batch.length, math.nan)
        scores[places] = given
        return LearningResult(scores, taught)

    def scorer(self) -> OnlineScorer:
        """Return what answers with the present state; where it answers by row it goes on sharing this one's models."""
        return OnlineScorer(self.declared, self._models, self.examples)

    def figures(self) -> Mapping[str, dict[str, float]]:
        """Return the prequential metrics by model."""
        return {name: metric.figures() for name, metric in self.metrics.items()}

    @property
    def segments(self) -> tuple[str, ...]:
        """Segments that have a model, the shared one ("") included, in the order they came."""
        return tuple(self._models.by_segment)

    def snapshot(self, key: bytes) -> bytes:
        """Return models, metrics and offsets as one signed object.

        Raises
        ------
        Refused
            If the state holds something that could not be loaded again.
        """
        metrics = {name: metric.state() for name, metric in self.metrics.items()}
        header = self.declared.header(self.examples, self.offsets, metrics)
        return seal(header, self._models.by_segment, self.declared.allowed, key)

    def restore(self, snapshot: bytes, key: bytes) -> None:
        """Go on from a snapshot.

        Raises
        ------
        Refused
            Naming what does not fit; nothing has changed then.
        """
        header, models = open_snapshot(snapshot, self.declared, key)
        metrics = {name: Prequential.of_state(header.metrics[name]) for name in self.metrics}
        self.examples, self.offsets, self.metrics = header.examples, dict(header.offsets), metrics
        self._models = Models(self.declared, models)


def _unchanged(batch: Batch, labels: Floats) -> NDArray[np.bool_]:
    """Return which examples only add to what had been believed before their label."""
    names = ("previous_label", "previous_known_at_ms", "label_known_at_ms")
    if not set(names) <= batch.columns.keys():
        return np.zeros(batch.length, dtype=np.bool_)
    since_ms, before_ms = batch.columns["label_known_at_ms"], batch.columns["previous_known_at_ms"]
    same: NDArray[np.bool_] = (batch.as_floats("previous_label") == labels) & (before_ms == since_ms)
    return same & ~batch.is_null("previous_known_at_ms")
