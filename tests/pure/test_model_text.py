"""A model text that is not whole is refused in words before the library sees it, which would kill the process."""

from __future__ import annotations

import lightgbm
import numpy as np
import pytest

from millstream.adapters.models.lightgbm_model import TextModel
from millstream.core.models.model_text import fault
from millstream.errors import Refused

_BY_CATEGORY = {"min_data_per_group": 5, "cat_smooth": 1}


@pytest.fixture(scope="module")
def body() -> str:
    random = np.random.default_rng(2)
    rows = np.column_stack([random.normal(size=2000), random.integers(0, 40, 2000).astype(float)])
    labels = ((rows[:, 0] > 0) ^ (rows[:, 1] % 3 == 0)).astype(float)
    data = lightgbm.Dataset(rows, label=labels, params={"verbosity": -1}, categorical_feature=[1])
    parameters = {
        "objective": "binary",
        "num_leaves": 7,
        "verbosity": -1,
        "num_threads": 1,
        "min_data_in_leaf": 5,
        **_BY_CATEGORY,
    }
    text = lightgbm.train(parameters, data, num_boost_round=4).model_to_string()
    assert "num_cat=2" in text
    return text


def test_a_whole_one_has_no_fault(body: str) -> None:
    assert fault(body) is None
    assert TextModel(body).features == ("Column_0", "Column_1")


def test_wherever_it_is_cut_short_it_is_refused(body: str) -> None:
    end = body.index("end of trees")
    for cut in range(5, end, 37):
        with pytest.raises(Refused, match="not a whole LightGBM text"):
            TextModel(body[:cut])


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("leaf_value", "0.5", "'leaf_value' does not hold"),
        ("leaf_value", "a b c d e f g", "'leaf_value' does not hold"),
        ("num_leaves", "999", "'split_feature' does not hold 998 numbers"),
        ("num_leaves", "", "'num_leaves' or 'num_cat' is no number"),
        ("split_feature", "0 0 0 0 0 9", "a feature that the model does not have"),
        ("left_child", "0 0 0 0 0 0", "'left_child' points nowhere"),
        ("right_child", "99 -1 -2 -3 -4 -5", "'right_child' points nowhere"),
        ("cat_boundaries", "0", "'cat_boundaries'"),
        ("cat_threshold", "", "'cat_threshold' is too short"),
        ("decision_type", "1 1 1 1 1 1", "a set of categories that it does not have"),
    ],
)
def test_a_tree_that_does_not_hold_what_it_says_is_refused(body: str, field: str, value: str, words: str) -> None:
    head, trees = body.split("\n\n", 1)
    first = next(n for n, tree in enumerate(trees.split("Tree=")[1:]) if "num_cat=2" in tree and "num_leaves=7" in tree)
    blocks = ["Tree=" + each for each in trees.split("end of trees")[0].split("Tree=")[1:]]
    lines = [f"{field}={value}" if line.startswith(f"{field}=") else line for line in blocks[first].split("\n")]
    assert lines != blocks[first].split("\n")
    blocks[first] = "\n".join(lines)
    kept = [line for line in head.split("\n") if not line.startswith("tree_sizes=")]
    sizes = "tree_sizes=" + " ".join(str(len(block)) for block in blocks)
    spoiled = "\n".join([*kept, sizes]) + "\n\n" + "".join(blocks) + "end of trees\n"
    with pytest.raises(Refused, match=words):
        TextModel(spoiled)


@pytest.mark.parametrize("names", ["", "Column_0", "Column_0 Column_1 Column_2"])
def test_a_head_that_names_fewer_or_more_features_than_its_trees_may_ask_for_is_refused(body: str, names: str) -> None:
    with pytest.raises(Refused, match=f"its head names {len(names.split())} features, but max_feature_idx implies 2"):
        TextModel(body.replace("feature_names=Column_0 Column_1\n", f"feature_names={names}\n"))
