"""The online model as a team declares it: a Python file of the feature repo with a River pipeline.

``online_model.py`` defines ``model``, a fresh River classifier or a pipeline ending in one. It may define ``features``,
the names of what the model reads (default: the numbers that the feature service serves, and ``champion__logit``,
the log-odds of the champion's score; ``champion_score`` is there too), and ``state_classes``, should its state hold
classes that a rehearsal of 300 rows does not meet.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import json
import runpy
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from millstream.adapters.models.river_classes import allowed
from millstream.adapters.models.river_header import Header
from millstream.adapters.models.river_snapshot import Names
from millstream.core.declaration import Service
from millstream.errors import Misconfigured

FILE: Final = "online_model.py"
CHAMPION_SCORE: Final = "champion_score"
"""The scored record's column with the champion's score, whichever model answered; null without a champion."""

CHAMPION_LOGIT: Final = "champion__logit"
"""The log-odds of that column, made by the engine. A linear model that may only weight the score itself spoils it."""

_NUMBERS: Final = frozenset({"int64", "int32", "float64", "float32", "bool"})


@dataclass(frozen=True, slots=True)
class OnlineModel:
    """A declared online model.

    Parameters
    ----------
    name : str
        Under which it is known: the feature service's.
    features : tuple of str
        What it reads, in the order that its rows have.
    pipeline : str
        Digest of the pipeline: classes and parameters, and the file's text if it defines functions the pipeline uses.
    fresh : River classifier
        Never trained; take copies (`blank`).
    allowed : mapping
        All that its snapshots may refer to.
    segment : str or None
        Column whose values get a model each.
    max_segments : int
        Most values that do, >= 0; the rest share one model.
    """

    name: str
    features: tuple[str, ...]
    pipeline: str
    fresh: Any
    allowed: Mapping[Names, object]
    segment: str | None = None
    max_segments: int = 0

    def blank(self) -> Any:
        """Return an untrained model of one's own."""
        return copy.deepcopy(self.fresh)

    def header(self, examples: int, offsets: Mapping[str, int], metrics: Mapping[str, Any]) -> Header:
        """Return the header of a snapshot of this model."""
        return Header(
            model=self.name,
            examples=examples,
            pipeline=self.pipeline,
            features=self.features,
            segment=self.segment,
            max_segments=self.max_segments,
            libraries={"river": importlib.metadata.version("river")},
            offsets=dict(offsets),
            metrics=dict(metrics),
        )


def declare(
    name: str,
    model: Any,
    features: Sequence[str],
    *,
    segment: str | None = None,
    max_segments: int = 0,
    state_classes: Sequence[type] = (),
    source: str = "",
    file: str = "the declared pipeline",
) -> OnlineModel:
    """Check a pipeline and return it as a declared online model.

    Parameters
    ----------
    model : River classifier
        Fresh.
    segment : str or None
        Column whose values get a model each, at most ``max_segments`` of them.
    source, file : str
        Text and name of the declaring file, for the digest and for errors.

    Raises
    ------
    Misconfigured
        If it is no River classifier with probabilities, cannot bear missing features, draws random numbers without a
        seed, or its state cannot be stored safely.
    """
    if not hasattr(model, "_get_params"):
        raise Misconfigured(f"{file}: {type(model).__name__} is no River model; declare a River classifier")
    for path in _unseeded(model):
        raise Misconfigured(
            f"{file}: {path} has no seed, so that a restart would not learn what the first run did; give it seed=0"
        )
    return OnlineModel(
        name=name,
        features=tuple(features),
        pipeline=_digest(model, source),
        fresh=model,
        allowed=allowed(model, features, state_classes, file),
        segment=segment,
        max_segments=max_segments if segment is not None else 0,
    )


def load(path: Path, service: Service, *, segment: str | None = None, max_segments: int = 0) -> OnlineModel:
    """Run the declaring file and return the online model.

    Parameters
    ----------
    path : Path
        The declaring file.
    service : Service
        Whose features the model may read.

    Raises
    ------
    Misconfigured
        If there is no such file, it fails or defines no ``model``, or wants features that are not served or no
        numbers; and as `declare`.
    """
    if not path.is_file():
        raise Misconfigured(f"{path} is not there; declare `model = ...` in it, ordinary River code")
    try:
        found = runpy.run_path(str(path), run_name="millstream_online_model")
    except Exception as error:  # user code: any exception is reported with the file and the reason
        lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == str(path)]
        where = f"{path}, line {lines[-1]}" if lines else str(path)
        raise Misconfigured(f"{where}: {type(error).__name__}: {error}") from error
    if "model" not in found:
        raise Misconfigured(f"{path} defines no `model`; assign the River pipeline to that name")
    numbers = [column for column, dtype in service.features if dtype in _NUMBERS] + [CHAMPION_LOGIT]
    features = list(found.get("features", numbers))
    unknown = [column for column in features if column not in (*numbers, CHAMPION_SCORE)]
    if unknown or not features:
        raise Misconfigured(
            f"{path}: `features` names {', '.join(unknown) or 'nothing'}; numbers that feature service "
            f"{service.name!r} serves are {', '.join(numbers)}"
        )
    return declare(
        service.name,
        found["model"],
        features,
        segment=segment,
        max_segments=max_segments,
        state_classes=found.get("state_classes", ()),
        source=path.read_text(),
        file=str(path),
    )


def _unseeded(model: Any) -> Iterator[str]:
    for part in _parts(model):
        params = part._get_params()
        if "seed" in params and params["seed"] is None:
            yield type(part).__name__


def _parts(model: Any) -> Iterator[Any]:
    """Yield the estimators that a model is declared of, itself first."""
    if hasattr(model, "_get_params"):
        yield model
        steps = getattr(model, "steps", None)
        held = steps.values() if isinstance(steps, dict) else vars(model).values()
        for each in held:
            yield from _parts(each)


def _digest(model: Any, source: str) -> str:
    """Return sha256 of the pipeline's classes and parameters."""
    own: list[str] = []

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return [[str(name), plain(each)] for name, each in value.items()]
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
            if not value.__module__.startswith(("river.", "builtins")):
                own.append(value.__module__)
            return f"{value.__module__}.{value.__qualname__}"
        if value is None or isinstance(value, bool | int | float | str):
            return repr(value)
        return [f"{type(value).__module__}.{type(value).__qualname__}", plain(getattr(value, "__dict__", str(value)))]

    described = [plain(type(model)), plain(model._get_params())]
    text = json.dumps([described, source if own else ""])
    return hashlib.sha256(text.encode()).hexdigest()
