"""Validation of LightGBM text models: the library reads past the end of a truncated one, and crashes the process.

It trusts the sizes in the header and the lengths of the arrays. A text that was cut short, or in which an array is too
short, makes it read whatever lies behind in memory, on several threads at once; an exception there cannot be caught.
"""

from __future__ import annotations

from typing import Final

_NODES: Final = ("split_feature", "threshold", "decision_type", "left_child", "right_child")
_NODES_IF_SAID: Final = ("split_gain", "internal_value", "internal_weight", "internal_count")
_LEAVES_IF_SAID: Final = ("leaf_weight", "leaf_count")
_INTEGERS: Final = frozenset({"split_feature", "decision_type", "left_child", "right_child"})
_CATEGORICAL: Final = 1

OBJECTIVE: Final = "binary"
"""LightGBM's objective whose output is a probability of one of two outcomes: the only one that gives scores."""


def fault(body: str) -> str | None:
    """Return what is wrong with a model's text; None if every tree is there and holds what its head declares.

    Examples
    --------
    >>> fault("tree\\nversion=v4\\n")
    "it is cut short before its trees: there is no 'tree_sizes'"
    """
    data = body.encode()
    head, _, _ = data.partition(b"\n\n")
    fields = _fields(head)
    if "tree_sizes" not in fields:
        return "it is cut short before its trees: there is no 'tree_sizes'"
    sizes, last_feature = _integers(fields["tree_sizes"]), _integers(fields.get("max_feature_idx", ""))
    if sizes is None or last_feature is None or len(last_feature) != 1:
        return "'tree_sizes' or 'max_feature_idx' in its head are no numbers"
    if len(feature_names(body)) != last_feature[0] + 1:
        return f"its head names {len(feature_names(body))} features, but max_feature_idx implies {last_feature[0] + 1}"
    at = len(head) + 2
    for number, size in enumerate(sizes):
        block = data[at : at + size]
        if not block.startswith(b"Tree=%d\n" % number) or len(block) < size:
            return f"it is cut short or damaged at tree {number} of {len(sizes)}"
        wrong = _tree_fault(_fields(block), last_feature[0])
        if wrong is not None:
            return f"tree {number} of {len(sizes)}: {wrong}"
        at += size
    ends = data[at:].startswith(b"end of trees")
    return None if ends else "it does not end where its head places the end of the trees"


def feature_names(body: str) -> tuple[str, ...]:
    """Return the columns a model reads, in its order; () if its head does not say.

    Examples
    --------
    >>> feature_names("tree\\nfeature_names=Column_0 Column_1\\n\\nTree=0\\n")
    ('Column_0', 'Column_1')
    """
    head, _, _ = body.partition("\n\n")
    return tuple(_fields(head.encode()).get("feature_names", "").split())


def objective(body: str) -> str:
    """Return the objective a model was trained for, e.g. ``binary``; "" if its head does not say.

    Examples
    --------
    >>> objective("tree\\nobjective=binary sigmoid:1\\n\\nTree=0\\n")
    'binary'
    """
    head, _, _ = body.partition("\n\n")
    return (_fields(head.encode()).get("objective", "").split() or [""])[0]


def _tree_fault(fields: dict[str, str], last_feature: int) -> str | None:
    leaves, categories = (_integers(fields.get(name, "")) for name in ("num_leaves", "num_cat"))
    if not leaves or not categories or len(leaves) != 1 or leaves[0] < 1 or len(categories) != 1:
        return "'num_leaves' or 'num_cat' is no number"
    count, nodes = leaves[0], leaves[0] - 1
    lengths = dict.fromkeys(_NODES, nodes) | {"leaf_value": count}
    if nodes:  # of a lone leaf the library reads nothing but its value
        lengths |= {name: nodes for name in _NODES_IF_SAID if name in fields}
        lengths |= {name: count for name in _LEAVES_IF_SAID if name in fields}
    columns: dict[str, list[float]] = {}
    for name, length in lengths.items():
        values: list[int] | list[float] | None = (_integers if name in _INTEGERS else _reals)(fields.get(name, ""))
        if values is None or len(values) != length:
            return f"{name!r} does not hold {length} numbers"
        columns[name] = list(values)
    if not all(0 <= each <= last_feature for each in columns["split_feature"]):
        return "it splits by a feature that the model does not have"
    for name in ("left_child", "right_child"):
        # A node comes after its parent, so there is no way round in circles.
        if not all(-count <= child < nodes and (child < 0 or child > at) for at, child in enumerate(columns[name])):
            return f"{name!r} points nowhere"
    return _categories_fault(fields, categories[0], columns)


def _categories_fault(fields: dict[str, str], categories: int, columns: dict[str, list[float]]) -> str | None:
    by_category = [
        threshold
        for kind, threshold in zip(columns["decision_type"], columns["threshold"], strict=True)
        if int(kind) & _CATEGORICAL
    ]
    if not all(each in range(categories) for each in by_category):
        return "it splits by a set of categories that it does not have"
    if not categories:
        return None
    bounds, words = (_integers(fields.get(name, "")) for name in ("cat_boundaries", "cat_threshold"))
    if bounds is None or words is None or len(bounds) != categories + 1 or bounds != sorted(bounds) or bounds[0] < 0:
        return "'cat_boundaries' does not say where its sets of categories begin and end"
    return None if bounds[-1] <= len(words) else "'cat_threshold' is too short"


def _fields(block: bytes) -> dict[str, str]:
    lines = (line.partition("=") for line in block.decode(errors="replace").splitlines())
    return {name: value for name, _, value in lines}


def _integers(text: str) -> list[int] | None:
    try:
        return [int(word) for word in text.split()]
    except ValueError:
        return None


def _reals(text: str) -> list[float] | None:
    try:
        return [float(word) for word in text.split()]
    except ValueError:
        return None
