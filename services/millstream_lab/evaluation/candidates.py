"""River pipelines that an online model might be, for comparison on one's own events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

Make = Callable[[], Any]

_RARE: Final[dict[str, Any]] = {"max_share_to_split": 0.9999, "min_branch_fraction": 0.0001}
"""River's trees do not split by default where fewer than 1 in 100 events is positive."""


def candidates() -> Mapping[str, Make]:
    """Return what makes each fresh pipeline, by name."""
    from river import ensemble, forest, linear_model, naive_bayes, optim, preprocessing, tree

    def logistic(optimizer: Any) -> Any:
        return preprocessing.StandardScaler() | linear_model.LogisticRegression(optimizer=optimizer)

    def slow() -> Any:
        return logistic(optim.SGD(0.001))

    return {
        "logistic regression, SGD 0.01": lambda: logistic(optim.SGD(0.01)),
        "logistic regression, SGD 0.001": slow,
        "logistic regression, SGD 0.0001": lambda: logistic(optim.SGD(0.0001)),
        "logistic regression, Adam 0.001": lambda: logistic(optim.Adam(0.001)),
        "bagging of 5": lambda: ensemble.BaggingClassifier(slow(), n_models=5, seed=0),
        "ADWIN bagging of 5": lambda: ensemble.ADWINBaggingClassifier(slow(), n_models=5, seed=0),
        "naive Bayes": naive_bayes.GaussianNB,
        "Hoeffding tree": lambda: tree.HoeffdingTreeClassifier(**_RARE),
        "Hoeffding adaptive tree": lambda: tree.HoeffdingAdaptiveTreeClassifier(seed=0, **_RARE),
        "ARF of 10 trees": lambda: forest.ARFClassifier(n_models=10, seed=0, **_RARE),
        "AMF of 10 trees": lambda: preprocessing.MinMaxScaler() | forest.AMFClassifier(n_estimators=10, seed=0),
    }
