"""The classes allowed in snapshots of a declared River pipeline, found by a trial run.

No prefix such as ``river.*``: a snapshot must not be able to name a data set that downloads, or a transformer that
calls any function. A rehearsal of the declared pipeline shows what it is made of; trees, which change the class of
their nodes as they grow, add the node classes that their own modules name.
"""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from millstream.adapters.models.river_snapshot import Names, references
from millstream.errors import Misconfigured, Refused

_ROWS: Final = 300
_GROWING: Final = ("river.tree.", "river.anomaly.")
_STATE: Final = ("river.tree.nodes.", "river.tree.splitter.", "river.tree.mondrian.", "river.proba.")
_REBUILDERS: Final = frozenset(
    {("copyreg", "_reconstructor"), ("numpy._core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "scalar")}
)
"""Functions, not classes, that only put together objects of classes they are given."""


def rehearse(model: Any, features: Sequence[str], model_file: str = "the declared pipeline") -> Any:
    """Let a copy of a fresh model predict and learn made-up rows, some with features missing; return the copy.

    Raises
    ------
    Misconfigured
        If it is no classifier with probabilities, or cannot bear a missing feature.
    """
    for method in ("predict_proba_one", "learn_one"):
        if not hasattr(model, method):
            raise Misconfigured(f"{model_file}: {type(model).__name__} has no {method}; declare a River classifier")
    rehearsed = copy.deepcopy(model)
    rng = random.Random(7)
    missing = False
    try:
        for row in range(_ROWS):
            missing = row % 10 == 9
            x = {name: rng.gauss(row // 100, 1.0) for name in features if not (missing and rng.random() < 0.3)}
            y = rng.random() < (0.8 if sum(x.values()) > 0 else 0.2)
            rehearsed.predict_proba_one(x)
            rehearsed.learn_one(x, y)
    except NotImplementedError as error:
        raise Misconfigured(
            f"{model_file}: {type(model).__name__} gives no probability; a score is one: declare a classifier "
            "with predict_proba_one"
        ) from error
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        what = "a row with missing features" if missing else "a row of floats"
        raise Misconfigured(
            f"{model_file}: the pipeline fails on {what} ({type(error).__name__}: {error}). A feature that is null is "
            "left out of the row, as River's own missing values are"
        ) from error
    return rehearsed


def allowed(
    model: Any, features: Sequence[str], state_classes: Sequence[type] = (), model_file: str = "the declared pipeline"
) -> Mapping[Names, object]:
    """Return all that a snapshot of this pipeline may refer to, by module and qualified name.

    Parameters
    ----------
    model : River classifier or pipeline
        Fresh; it stays so.
    features : sequence of str
        What it will read.
    state_classes : sequence of type
        Further classes that the team knows its pipeline's state to hold.

    Raises
    ------
    Misconfigured
        If the pipeline cannot be run (`rehearse`), or its state cannot be stored safely; names what is in the way.
    """
    rehearsed = rehearse(model, features, model_file)
    try:
        found = references([model, rehearsed])
    except Refused as error:
        raise Misconfigured(f"{model_file}: {error}") from error
    for module, name in found:
        thing = found[module, name]
        foreign = module in sys.modules and not module.startswith("river.")  # the declaring file is no such module
        if foreign and not isinstance(thing, type) and (module, name) not in _REBUILDERS:
            raise Misconfigured(
                f"{model_file}: the state of {type(model).__name__} refers to {module}.{name}, which is no class; "
                "a snapshot of it would have to be allowed to call that"
            )
    for each in [*found.values(), *state_classes]:
        if isinstance(each, type):
            _grow(each, found)
    return found


def _grow(seed: type, found: dict[Names, object]) -> None:
    """Add the node classes that modules of growing models name, transitively."""
    found.setdefault((seed.__module__, seed.__qualname__), seed)
    waiting = [seed.__module__]
    # A forest's module names no nodes itself; the trees it is made of are in the rehearsed state, or its bases.
    waiting += [base.__module__ for base in seed.__mro__]
    walked: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module in walked or not module.startswith((*_GROWING, "river.forest.")):
            continue
        walked.add(module)
        for thing in vars(sys.modules[module]).values():
            if isinstance(thing, type) and thing.__module__.startswith("river."):
                waiting.append(thing.__module__)
                if thing.__module__.startswith(_STATE):
                    found.setdefault((thing.__module__, thing.__qualname__), thing)
