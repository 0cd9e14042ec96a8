"""Scoring of a boosted forest for many rows at once, bit for bit as LightGBM, without branches per node.

A tree's leaves are the bits of a word, from left to right. Each node whose test sends a row to the right strikes out
the leaves on its left; the first leaf that stands is the row's. Nodes are taken one after the other, each for a block
of rows, so that the processor compares several rows per instruction and has no jump to foretell. Walking down, row by
row, spends most of its time on mispredicted branches.

References
----------
.. [1] C. Lucchese et al., "QuickScorer: a Fast Algorithm to Rank Documents with Additive Ensembles of Regression
   Trees", SIGIR 2015; "Exploiting CPU SIMD Extensions to Speed-up Document Scoring with Tree Ensembles", SIGIR 2016.
.. [2] C. Leiserson, H. Prokop, K. Randall, "Using de Bruijn Sequences to Index a 1 in a Computer Word", 1998.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millstream.core.jit import kernel

MOST_LEAVES = 64
_ROWS = 256
_DE_BRUIJN = 0x03F79D71B4CB0A89
_PLACES = [(_DE_BRUIJN << bit & (1 << 64) - 1) >> 58 for bit in range(64)]
_ZERO = float(np.float32(1e-35))  # the library takes what is no larger for 0
_CATEGORICAL, _DEFAULT_LEFT, _ZERO_IS_MISSING, _NAN_IS_MISSING = 1, 2, 1 << 2, 2 << 2


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees of a binary model.

    Parameters
    ----------
    first_node : int64 ndarray of shape (trees + 1,)
        Where each tree's nodes begin.
    feature : int64 ndarray of shape (nodes,)
    threshold : float64 ndarray of shape (nodes,)
        A value above it goes to the right.
    nan_right : bool ndarray of shape (nodes,)
        Whether a missing value does.
    kept : uint64 ndarray of shape (nodes,)
        Leaves that are left to a row that goes to the right.
    leaves : float64 ndarray of shape (trees, 64)
        Leaf values, at the places that `_DE_BRUIJN` gives their bits.
    sigmoid : float
        Steepness of the logistic function at the end.
    """

    first_node: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    nan_right: NDArray[np.bool_]
    kept: NDArray[np.uint64]
    leaves: NDArray[np.float64]
    sigmoid: float

    @staticmethod
    def parse(text: str) -> Forest | None:
        """Read LightGBM's text format; None where a model has something else than numerical splits of a binary score.

        That is: another objective, categorical splits, linear leaves, zeros that stand for missing, more than 64 leaves
        a tree, averaged trees (random forests).
        """
        head, *trees = text.partition("\nend of trees")[0].split("\nTree=")
        fields = _fields(head)
        objective = fields.get("objective", "").split()
        if objective[:1] != ["binary"] or len(objective) != 2 or "average_output" in fields:
            return None
        parsed = [_Tree.parse(_fields(tree), int(fields["max_feature_idx"])) for tree in trees]
        known = [tree for tree in parsed if tree is not None]
        if not known or len(known) < len(parsed):
            return None
        return Forest(
            np.cumsum([0, *(len(tree.feature) for tree in known)]),
            np.array([feature for tree in known for feature in tree.feature], dtype=np.int64),
            np.array([threshold for tree in known for threshold in tree.threshold], dtype=np.float64),
            np.array([right for tree in known for right in tree.nan_right], dtype=np.bool_),
            np.array([kept for tree in known for kept in tree.kept], dtype=np.uint64),
            np.array([tree.leaves for tree in known], dtype=np.float64),
            float(objective[1].removeprefix("sigmoid:")),
        )

    def predict(self, columns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return probabilities, shape (n,), of the rows of C-contiguous ``columns``, shape (features, n)."""
        scores = np.empty(columns.shape[1], dtype=np.float64)
        _predict(
            self.first_node, self.feature, self.threshold, self.nan_right, self.kept, self.leaves, self.sigmoid,
            columns, scores,
        )  # fmt: skip
        return scores

    def probe(self, features: int, rows: int) -> NDArray[np.float64]:
        """Return rows that lie on thresholds, beside them, or nowhere, as columns; to hold the library against."""
        random = np.random.default_rng(0)
        odd = np.array([np.nan, 0.0, -0.0, np.inf, -np.inf])
        columns = np.empty((features, rows))
        for number, column in enumerate(columns):
            at = self.threshold[self.feature == number]
            values = np.concatenate([at, np.nextafter(at, np.inf), np.nextafter(at, -np.inf), odd])
            column[:] = values[random.integers(0, len(values), rows)]
        return columns


@dataclass(frozen=True, slots=True)
class _Tree:
    feature: list[int]
    threshold: list[float]
    nan_right: list[bool]
    kept: list[int]
    leaves: NDArray[np.float64]

    @staticmethod
    def parse(fields: Mapping[str, str], last_feature: int) -> _Tree | None:
        values = [float(value) for value in fields.get("leaf_value", "").split()]
        kinds = [int(kind) for kind in fields.get("decision_type", "").split()]
        odd = fields.get("num_cat") != "0" or fields.get("is_linear", "0") != "0" or len(values) > MOST_LEAVES
        if odd or any(kind & (_CATEGORICAL | _ZERO_IS_MISSING) for kind in kinds):
            return None
        thresholds = [_threshold(float(threshold)) for threshold in fields.get("threshold", "").split()]
        left = [int(child) for child in fields.get("left_child", "").split()]
        right = [int(child) for child in fields.get("right_child", "").split()]
        features = [int(feature) for feature in fields.get("split_feature", "").split()]
        # Kernels check no bounds, and a damaged tree may have circles.
        whole = sorted(left + right) == [*range(-len(values), 0), *range(1, len(values) - 1)] or len(values) == 1
        lengths = {len(each) for each in (kinds, thresholds, left, right, features)}
        if not whole or lengths != {len(values) - 1} or any(not 0 <= each <= last_feature for each in features):
            return None
        order, on_left = _left_to_right(left, right)
        leaves = np.zeros(MOST_LEAVES)
        leaves[_PLACES[: len(order)]] = [values[leaf] for leaf in order]
        return _Tree(
            features,
            thresholds,
            # Where missing values have no side of their own, LightGBM takes them for zeros.
            [
                not kind & _DEFAULT_LEFT if kind & _NAN_IS_MISSING else not threshold >= 0
                for kind, threshold in zip(kinds, thresholds, strict=True)
            ],
            [~bits & (1 << 64) - 1 for bits in on_left],
            leaves,
        )


def _threshold(value: float) -> float:
    """Return the threshold that parts values as this one parts what the library makes of them."""
    if -_ZERO <= value < 0:
        return math.nextafter(-_ZERO, -math.inf)
    return _ZERO if 0 <= value < _ZERO else value


def _fields(lines: str) -> dict[str, str]:
    return {name: value for name, _, value in (line.partition("=") for line in lines.splitlines())}


def _left_to_right(left: list[int], right: list[int]) -> tuple[list[int], list[int]]:
    """Return leaves from left to right, and of each node the bits of those under its left child.

    A child >= 0 is a node, -1 - k is leaf k. Without recursion: a tree may be as deep as it has leaves.
    """
    if not left:
        return [0], []
    order: list[int] = []
    on_left = [0] * len(left)
    ahead = [(0, False)]
    began = [0] * len(left)
    while ahead:
        node, left_done = ahead.pop()
        if node < 0:
            order.append(-1 - node)
        elif left_done:
            on_left[node] = (1 << len(order)) - (1 << began[node])
        else:
            began[node] = len(order)
            ahead += [(right[node], False), (node, True), (left[node], False)]
    return order, on_left


@kernel
def _predict(
    first_node: NDArray[np.int64],
    feature: NDArray[np.int64],
    threshold: NDArray[np.float64],
    nan_right: NDArray[np.bool_],
    kept: NDArray[np.uint64],
    leaves: NDArray[np.float64],
    sigmoid: float,
    columns: NDArray[np.float64],
    scores: NDArray[np.float64],
) -> None:
    everything = ~np.uint64(0)
    standing = np.empty(_ROWS, dtype=np.uint64)
    for begin in range(0, len(scores), _ROWS):
        total = scores[begin : begin + _ROWS]
        rows = len(total)
        total[:] = 0.0
        for tree in range(len(leaves)):
            standing[:rows] = everything
            for node in range(first_node[tree], first_node[tree + 1]):
                values = columns[feature[node], begin : begin + rows]
                limit, rest = threshold[node], kept[node]
                if nan_right[node]:
                    for i in range(rows):
                        standing[i] &= everything if values[i] <= limit else rest
                else:
                    for i in range(rows):
                        standing[i] &= rest if values[i] > limit else everything
            for i in range(rows):
                first = standing[i] & (~standing[i] + np.uint64(1))
                total[i] += leaves[tree, (first * np.uint64(_DE_BRUIJN)) >> np.uint64(58)]
        for i in range(rows):
            total[i] = 1.0 / (1.0 + math.exp(-sigmoid * total[i]))
