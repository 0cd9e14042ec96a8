"""Concept drift: whether scores still mean what they meant, apart from covariate shift.

A calibrated score is the chance of the positive class *given the features*. As long as that holds, labels scatter
around scores as chance has it, wherever the features go; so a shift of features alone raises nothing here, and a change
of what features mean does without any shift. The test is the risk-adjusted CUSUM [1]_: the running log-likelihood ratio
of "the odds are ``ratio`` times those of the score" to "the score is right", never below 0.

References
----------
.. [1] Steiner, Cook, Farewell, Treasure (2000), "Monitoring surgical performance using risk-adjusted cumulative sum
       charts", Biostatistics 1(4).
.. [2] Lorden (1971), "Procedures for reacting to a change in distribution", Annals of Mathematical Statistics 42: with
       a threshold h the mean number of events to a false alarm is e**h at least.
.. [3] Zadrozny, Elkan (2002), "Transforming classifier scores into accurate multiclass probability estimates", KDD:
       calibration by isotonic regression.
.. [4] Platt (1999), "Probabilistic outputs for support vector machines", Advances in Large Margin Classifiers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from millstream.core.batch import Floats, Mask
from millstream.core.drift.evidence_sums import cusum_alarms

_EDGE: Final = 1e-6
_LOW: Final = 3.0
_FOLDS: Final = 4
_KNOTS: Final = np.linspace(-14.0, 14.0, 225)
_SIMULATED: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Calibration:
    """From scores to probabilities: monotone, linear between knots, constant beyond them.

    Parameters
    ----------
    scores, probabilities : tuple of float, length k >= 1
        Ascending.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    @staticmethod
    def fit(scores: Floats, labels: Mask) -> Calibration:
        """Fit to labelled scores the model was not trained on.

        By logistic regression on the log-odds [4]_ or by isotonic regression [3]_, whichever foretells held-out labels
        better. The first has two parameters, and knows of scores that were rare what those that were frequent say; the
        second bends where the first is wrong, and is noisy where scores are rare, as they cease to be when features
        shift.

        Raises
        ------
        ValueError
            If there are none, or only one class is among them.
        """
        if not labels.any() or labels.all():
            raise ValueError("calibration needs labelled scores of both classes")
        part, found = np.arange(len(scores)) % _FOLDS, []
        for fit in (_logistic, _isotonic):
            loss = 0.0
            for each in range(_FOLDS):
                held = part == each
                chances = fit(scores[~held], labels[~held])(scores[held])
                loss -= float(np.where(labels[held], np.log(chances), np.log1p(-chances)).sum())
            found.append(loss)
        return (_logistic if found[0] <= found[1] else _isotonic)(scores, labels)

    @staticmethod
    def of_json(raw: Mapping[str, Sequence[Any]]) -> Calibration:
        """Return the calibration whose JSON object this is; TypeError, KeyError if it is none."""
        return Calibration(tuple(map(float, raw["scores"])), tuple(map(float, raw["probabilities"])))

    def __call__(self, scores: Floats) -> Floats:
        """Return the probability of the positive class, shape (n,), kept 1e-6 away from 0 and 1."""
        return np.asarray(np.clip(np.interp(scores, self.scores, self.probabilities), _EDGE, 1 - _EDGE))


def _isotonic(scores: Floats, labels: Mask) -> Calibration:
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0.0, y_max=1.0).fit(scores, labels.astype(np.float64))
    return Calibration(tuple(fitted.X_thresholds_.tolist()), tuple(fitted.y_thresholds_.tolist()))


def _logistic(scores: Floats, labels: Mask) -> Calibration:
    """Return log-odds as a line through log-odds, rising; of one class alone, its share."""
    if not labels.any() or labels.all():
        return Calibration((0.5,), (float(labels.mean()),))
    from sklearn.linear_model import LogisticRegression

    clipped = np.clip(scores, _EDGE, 1 - _EDGE)
    fitted = LogisticRegression(C=np.inf).fit(np.log(clipped / (1 - clipped))[:, None], labels)
    line = max(float(fitted.coef_[0, 0]), 0.0) * _KNOTS + float(fitted.intercept_[0])
    return Calibration(tuple((1 / (1 + np.exp(-_KNOTS))).tolist()), tuple((1 / (1 + np.exp(-line))).tolist()))


def positive_evidence(labels: Mask, probabilities: Floats, ratio: float) -> Floats:
    """Return each label's log-likelihood ratio for positives' odds having changed by ``ratio``, shape (n,).

    Parameters
    ----------
    labels : bool ndarray of shape (n,)
    probabilities : float64 ndarray of shape (n,)
        Calibrated, in (0, 1).
    ratio : float, > 0
        Above 1: there are more positives than the scores say; below 1: fewer.
    """
    return np.asarray(np.where(labels, math.log(ratio), 0.0) - np.log1p((ratio - 1.0) * probabilities))


def error_evidence(labels: Mask, probabilities: Floats, ratio: float) -> Floats:
    """Return the same for the odds of an error of the likelier class: how sure scores are, rather than how high.

    It sees a change that leaves the share of positives as it was, e.g. one that swaps the classes.
    """
    wrong = labels != (probabilities >= 0.5)
    return positive_evidence(wrong, np.minimum(probabilities, 1.0 - probabilities), ratio)


def common_threshold(monitors: Sequence[ConceptMonitor], probabilities: Floats, events_per_alarm: float) -> float:
    """Return the threshold under which all monitors together give one false alarm in so many events.

    A CUSUM's false alarms become rarer by e where its threshold grows by 1 [2]_; how frequent they are at a low
    threshold is counted on a million events with labels drawn by the probabilities.

    Parameters
    ----------
    probabilities : float64 ndarray of shape (n,)
        Calibrated, of reference events; n >= 1.
    """
    rng = np.random.default_rng(0)
    drawn = rng.choice(probabilities, _SIMULATED)
    labels = rng.random(_SIMULATED) < drawn
    alarms = sum(len(cusum_alarms(each.evidence(labels, drawn), _LOW)) for each in monitors)
    per_event = max(alarms, 1) / _SIMULATED
    return max(_LOW, _LOW + math.log(per_event * events_per_alarm))


@dataclass(frozen=True, slots=True)
class ConceptMonitor:
    """One question about labels.

    Parameters
    ----------
    name : str
    errors : bool
        About errors of the likelier class rather than about positives.
    ratio : float, > 0
        Change of the odds it looks for.
    tolerated : float, > 0
        Change of the odds that is taken for none; ``ratio`` is beyond it.
    """

    name: str
    errors: bool
    ratio: float
    tolerated: float = 1.0

    def evidence(self, labels: Mask, probabilities: Floats) -> Floats:
        """Return what to feed its detector, shape (n,)."""
        of = error_evidence if self.errors else positive_evidence
        changed = of(labels, probabilities, self.ratio * self.tolerated)
        return changed if self.tolerated == 1.0 else changed - of(labels, probabilities, self.tolerated)


MONITORS: Final = (
    ConceptMonitor("more positives than scored", False, 1.5),
    ConceptMonitor("fewer positives than scored", False, 1 / 1.5),
    ConceptMonitor("more errors than scored", True, 1.5),
)
"""The default monitors; each gets an equal share of the budget for concept drift."""

ONLINE_MONITORS: Final = tuple(
    ConceptMonitor(each.name, each.errors, each.ratio, 1.2 if each.ratio > 1 else 1 / 1.2) for each in MONITORS
)
"""The same for a model that goes on learning: its odds wander, by a tenth from day to day on the card stream, and
evidence adds up. Twice of that is taken for none; a null hypothesis that is never quite true is always rejected."""
