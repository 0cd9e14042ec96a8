"""The model both sides score with: 100 trees of 31 leaves over the six window features."""

from __future__ import annotations

from typing import Any

import numpy as np

from services.cli.bench.oracle import FEATURES

TREES = 100
LEAVES = 31


def train_model(seed: int) -> Any:
    """Return a ``lightgbm.Booster`` trained on made-up rows; only its size matters.

    Raises
    ------
    AssertionError
        If a tree came out smaller than the method says.
    """
    import lightgbm

    random = np.random.default_rng(seed)
    counts = np.sort(random.poisson([2.0, 14.0, 60.0], (20_000, 3)), axis=1).astype(np.float64)
    means = random.gamma(2.0, 25.0, (20_000, 3))
    rows = np.empty((20_000, 6))
    rows[:, 0::2], rows[:, 1::2] = counts, means
    risk = np.sin(means[:, 0] / 9) + np.cos(means[:, 2] / 7) + counts[:, 1] / 14 - 2
    labels = random.random(20_000) < 1 / (1 + np.exp(-risk))
    data = lightgbm.Dataset(rows, label=labels, feature_name=list(FEATURES), params={"verbosity": -1})
    parameters = {"objective": "binary", "num_leaves": LEAVES, "verbosity": -1, "num_threads": 1, "seed": seed}
    booster = lightgbm.train(parameters, data, num_boost_round=TREES)
    leaves = [tree["num_leaves"] for tree in booster.dump_model()["tree_info"]]
    assert leaves == [LEAVES] * TREES, f"trees have {sorted(set(leaves))} leaves"
    return booster
