"""The model both sides score with: 100 trees of 31 leaves over the six window features."""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream_lab.bench.oracle import FEATURES

TREES = 100
LEAVES = 31


def train_model(seed: int, names: tuple[str, ...] = FEATURES) -> Any:
    """Return a ``lightgbm.Booster`` trained on made-up rows; only its size matters.

    Parameters
    ----------
    names : tuple of str
        Features it reads, at least four.

    Raises
    ------
    AssertionError
        If a tree came out smaller than declared.
    """
    import lightgbm

    random = np.random.default_rng(seed)
    # Counts as small whole numbers, all else as amounts of money.
    columns = [
        np.floor(1 + random.gamma(1.0, 15.0, 20_000)) if "count" in name else random.gamma(2.0, 25.0, 20_000)
        for name in names
    ]
    rows = np.column_stack(columns)
    risk = np.sin(columns[1] / 9) + np.cos(columns[3] / 7) + columns[2] / 14 - 2
    labels = random.random(20_000) < 1 / (1 + np.exp(-risk))
    data = lightgbm.Dataset(rows, label=labels, feature_name=list(names), params={"verbosity": -1})
    parameters = {"objective": "binary", "num_leaves": LEAVES, "verbosity": -1, "num_threads": 1, "seed": seed}
    booster = lightgbm.train(parameters, data, num_boost_round=TREES)
    leaves = [tree["num_leaves"] for tree in booster.dump_model()["tree_info"]]
    assert leaves == [LEAVES] * TREES, f"trees have {sorted(set(leaves))} leaves"
    return booster
