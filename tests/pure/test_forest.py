"""The quick way of answering a LightGBM model gives what the library gives, bit for bit, or gives way to it."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pytest

from millstream.adapters.models.lightgbm_model import TextModel
from millstream.core.models.forest import Forest

_BASE = {"objective": "binary", "verbosity": -1, "min_data_in_leaf": 2, "seed": 3, "num_threads": 1}


def _trained(
    missing: bool = True, categorical: tuple[int, ...] = (), **parameters: object
) -> tuple[str, lightgbm.Booster]:
    random = np.random.default_rng(5)
    rows = np.column_stack(
        [random.normal(size=3000), random.integers(0, 6, 3000), random.gamma(2.0, 25.0, 3000), np.zeros(3000)]
    )
    if missing:
        rows[random.random(rows.shape) < 0.1] = np.nan
    labels = (np.nan_to_num(rows[:, 0]) + np.sin(np.nan_to_num(rows[:, 2])) + random.normal(size=3000)) > 0.5
    data = lightgbm.Dataset(
        rows, label=labels.astype(float), params={"verbosity": -1}, categorical_feature=[*categorical]
    )
    booster = lightgbm.train({**_BASE, **parameters}, data, num_boost_round=20)
    return booster.model_to_string(), booster


def _rows(forest: Forest | None) -> np.ndarray:
    random = np.random.default_rng(1)
    mixed = np.vstack(
        [random.normal(size=700), random.integers(-1, 7, 700), random.gamma(2.0, 25.0, 700), np.ones(700)]
    )
    mixed[random.random(mixed.shape) < 0.2] = np.nan
    mixed[random.random(mixed.shape) < 0.1] = 0.0
    probes = [] if forest is None else [forest.probe(4, 3000)]
    return np.ascontiguousarray(np.hstack([mixed, *probes]))


@pytest.mark.parametrize(
    ("missing", "parameters"),
    [
        (True, {}),
        (False, {}),
        (True, {"num_leaves": 64}),
        (True, {"num_leaves": 2}),
        (True, {"use_missing": False}),
        (True, {"scale_pos_weight": 4.0, "sigmoid": 1.7}),
        (True, {"num_leaves": 60, "max_depth": -1, "min_data_in_leaf": 1, "boosting": "dart"}),
        (False, {"min_data_in_leaf": 5000}),
    ],
)
def test_equals_the_library_bit_for_bit(missing: bool, parameters: dict[str, Any]) -> None:
    text, booster = _trained(missing, **parameters)
    forest = Forest.parse(text)
    assert forest is not None
    rows = _rows(forest)
    want = np.asarray(booster.predict(np.ascontiguousarray(rows.T), num_threads=1))
    for count in (1, 2, 255, 256, 257, rows.shape[1]):
        part = np.ascontiguousarray(rows[:, :count])
        assert forest.predict(part).tobytes() == want[:count].tobytes()
        assert TextModel(text).predict(part).tobytes() == want[:count].tobytes()


@pytest.mark.parametrize(
    "parameters",
    [
        {"num_leaves": 200},
        {"zero_as_missing": True},
        {"categorical": (1,)},
        {"linear_tree": True},
        {"objective": "regression"},
        {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
    ],
)
def test_gives_way_to_the_library(parameters: dict[str, Any]) -> None:
    text, booster = _trained(**parameters)
    assert Forest.parse(text) is None
    rows = _rows(None)
    want = np.asarray(booster.predict(np.ascontiguousarray(rows.T), num_threads=1))
    assert TextModel(text).predict(rows).tobytes() == want.tobytes()


@pytest.mark.parametrize(
    ("line", "damage"),
    [("left_child=", "left_child=0 "), ("split_feature=", "split_feature=9 "), ("threshold=", "threshold=0 ")],
)
def test_damaged_trees_are_not_walked(line: str, damage: str) -> None:
    text, _ = _trained()
    first = text.index(line)
    end = text.index("\n", first)
    rest = text[first + len(line) : end].split()
    rest = rest if line == "threshold=" else rest[1:]
    assert Forest.parse(text[:first] + damage + " ".join(rest) + text[end:]) is None
