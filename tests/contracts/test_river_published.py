"""River's own published results, through our learner, to the last digit; and with labels that come late."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from river import datasets, ensemble, evaluate, forest, linear_model, metrics, naive_bayes, optim, preprocessing, stream
from river import tree as trees
from river.datasets import synth

from millstream.adapters.models.river_pipelines import declare
from millstream.core.batch import Batch
from millstream.stages.learn.learner import Learner

KEY = b"sixteen bytes or more"
Make = Callable[[], Any]


def logistic(optimizer: Any = None) -> Any:
    """Return the pipeline of most of River's examples."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optimizer=optimizer)


class SkyOrNot:
    """River's image segments, made binary: sky against the rest."""

    def __iter__(self) -> Any:
        return ((x, y == "sky") for x, y in datasets.ImageSegments())


def drifting(before: Any, after: Any, seed: int, width: int) -> Any:
    """Return a thousand events of River's generator of concept drift."""
    generator = synth.ConceptDriftStream(stream=before, drift_stream=after, seed=seed, position=500, width=width)
    return list(generator.take(1000))


def columns(dataset: Any) -> tuple[Batch, tuple[str, ...]]:
    """Return a shipped data set as the learner is given examples."""
    found = list(dataset)
    names = tuple(found[0][0])
    made = {str(name): np.array([float(x[name]) for x, _ in found]) for name in names}
    labels = np.array([float(y) for _, y in found])
    return Batch(len(found), {**made, "label": labels}), tuple(map(str, names))


def ours(make: Make, dataset: Any, metric: Any) -> Any:
    """Return the metric over what the learner answered, in micro-batches and through a snapshot after each."""
    batch, names = columns(dataset)
    declared = declare("published", make(), names)
    learner = Learner(declared)
    for start in range(0, batch.length, 499):
        rows = np.arange(start, min(start + 499, batch.length))
        learnt = learner.learn(batch.take(rows), "label", "river", rows)
        for label, score in zip(batch.columns["label"][rows].tolist(), learnt.scores.tolist(), strict=True):
            if not np.isnan(score):
                answer = score > 0.5 if metric.requires_labels else {False: 1.0 - score, True: score}
                metric.update(bool(label), answer)
        if start < 3 * 499:
            snapshot, learner = learner.snapshot(KEY), Learner(declared)
            learner.restore(snapshot, KEY)
    return metric


def named(dataset: Any) -> Any:
    """Return the data set with features named by text, as columns are: trees break ties by name."""
    return (({str(name): value for name, value in x.items()}, y) for x, y in dataset)


@pytest.mark.parametrize(
    ("make", "dataset", "metric", "published"),
    [
        (lambda: logistic(optim.SGD(0.1)), datasets.Phishing, metrics.Accuracy, "Accuracy: 88.96%"),
        (logistic, datasets.Phishing, metrics.ROCAUC, "ROCAUC: 95.07%"),
        (
            lambda: preprocessing.StandardScaler() | linear_model.Perceptron(),
            datasets.Phishing,
            metrics.Accuracy,
            "Accuracy: 85.84%",
        ),
        (
            lambda: ensemble.BaggingClassifier(logistic(), n_models=3, seed=42),
            datasets.Phishing,
            metrics.F1,
            "F1: 87.65%",
        ),
        (
            lambda: ensemble.LeveragingBaggingClassifier(logistic(), n_models=3, seed=42),
            datasets.Phishing,
            metrics.F1,
            "F1: 88.55%",
        ),
        (
            lambda: preprocessing.MinMaxScaler() | forest.AMFClassifier(n_estimators=10, dirichlet=0.5, seed=1),
            datasets.Bananas,
            metrics.Accuracy,
            "Accuracy: 84.05%",
        ),
        (
            lambda: preprocessing.StandardScaler() | linear_model.ALMAClassifier(),
            datasets.Phishing,
            metrics.Accuracy,
            "Accuracy: 82.56%",
        ),
        (
            lambda: ensemble.ADWINBoostingClassifier(logistic(), n_models=3, seed=42),
            datasets.Phishing,
            metrics.F1,
            "F1: 87.61%",
        ),
        (
            lambda: ensemble.ADWINBaggingClassifier(logistic(), n_models=3, seed=42),
            datasets.Phishing,
            metrics.F1,
            "F1: 87.65%",
        ),
        (
            lambda: trees.HoeffdingAdaptiveTreeClassifier(
                grace_period=100, delta=1e-5, leaf_prediction="nb", nb_threshold=10, seed=0
            ),
            lambda: drifting(synth.SEA(seed=42, variant=0), synth.SEA(seed=42, variant=1), 1, 50),
            metrics.Accuracy,
            "Accuracy: 91.49%",
        ),
        (
            lambda: trees.HoeffdingTreeClassifier(
                grace_period=100, delta=1e-5, nominal_attributes=["elevel", "car", "zipcode"]
            ),
            lambda: list(synth.Agrawal(classification_function=0, seed=42).take(1000)),
            metrics.Accuracy,
            "Accuracy: 84.58%",
        ),
        (
            lambda: trees.ExtremelyFastDecisionTreeClassifier(
                grace_period=100,
                delta=1e-5,
                nominal_attributes=["elevel", "car", "zipcode"],
                min_samples_reevaluate=100,
            ),
            lambda: list(synth.Agrawal(classification_function=0, seed=42).take(1000)),
            metrics.Accuracy,
            "Accuracy: 87.29%",
        ),
        (
            lambda: forest.ARFClassifier(seed=8, leaf_prediction="mc"),
            lambda: drifting(None, None, 42, 40),
            metrics.Accuracy,
            "Accuracy: 67.97%",
        ),
        (lambda: forest.ARFClassifier(n_models=3, seed=8), datasets.Phishing, metrics.ROCAUC, None),
        (lambda: trees.HoeffdingAdaptiveTreeClassifier(seed=1), datasets.Bananas, metrics.LogLoss, None),
        (naive_bayes.GaussianNB, SkyOrNot, metrics.Accuracy, None),
        (logistic, SkyOrNot, metrics.LogLoss, None),
    ],
)
def test_the_learner_gives_rivers_figures(make: Make, dataset: Make, metric: Make, published: str | None) -> None:
    """Published ones are those in the docstrings of River 0.26.1."""
    theirs = evaluate.progressive_val_score(named(dataset()), make(), metric())
    mine = ours(make, dataset(), metric())
    assert mine.get() == theirs.get()
    assert str(mine) == (published or str(theirs))


def test_with_labels_that_come_late_too() -> None:
    """Answers by the scorer at each question, lessons by the learner when the answer is there."""
    moments = itertools.count()
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    hours = [start + datetime.timedelta(hours=next(moments)) for _ in range(1250)]
    found = [({**x, "hour": float(row)}, y) for row, (x, y) in enumerate(datasets.Phishing())]
    late: dict[str, Any] = {
        "moment": lambda x: hours[int(x["hour"])],
        "delay": lambda x, _: datetime.timedelta(hours=24 + int(x["hour"]) % 50),
    }
    theirs = evaluate.progressive_val_score(found, logistic(), metrics.LogLoss(), **late)

    batch, names = columns(found)
    learner, metric = Learner(declare("published", logistic(), names)), metrics.LogLoss()
    answers: dict[int, float] = {}
    lessons = 0
    for row, _, y in stream.simulate_qa(found, **late):
        one = batch.take(np.array([row]))
        if y is None:
            answers[row] = learner.scorer().score(one).item()
        else:
            metric.update(y, {True: answers.pop(row)})
            learner.learn(one, "label", "river", np.array([lessons]))
            lessons += 1
    assert metric.get() == pytest.approx(theirs.get(), abs=1e-12)
    assert str(metric) == str(theirs)
