"""From replayed features and labels to a model and its manifest: split in time, fit, evaluate, describe."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from millstream.adapters.files.monitors_file import FILE
from millstream.adapters.models.lightgbm_model import TextModel
from millstream.adapters.reports.importance_plot import gains
from millstream.core.avro.numbers_read import booleans
from millstream.core.batch import Mask
from millstream.core.declaration import Service
from millstream.core.drift.budget import DAY_MS
from millstream.core.drift.declared import Monitors
from millstream.core.drift.make_reference import LEAST_DAYS, make_reference
from millstream.core.drift.model_reference import ModelReference
from millstream.core.metrics import best_f1_threshold, evaluate
from millstream.core.models.manifest import Manifest, Training, sha256
from millstream.core.profile import profile
from millstream.errors import Misconfigured
from millstream.stages.retrain.fit import Growth, Progress, fit
from millstream.stages.retrain.split import Split, Window, split


@dataclass(frozen=True, slots=True)
class TrainSpec:
    """What to train.

    Parameters
    ----------
    model : str
        Registered name of the model.
    service : Service
        Its features are the model's vector.
    event_time, group, label : str
        Columns: event time (int64 milliseconds), what is investigated per day, and the label
        (boolean or 0/1; null: not labelled, not used).
    label_known_at : str or None
        Column with the time each label became known, milliseconds; None: the event's plus the window's label delay.
    window : Window
    growth : Growth
    threshold : float or None
        Decision threshold for the manifest; None: the one with the best F1 on the validation part.
    precision_k : int
        Groups an investigator can look at per day.
    definitions, offsets, git_commit
        For the manifest.
    monitors : Monitors
        What is to be watched while it serves, and how often that may be wrong.
    """

    model: str
    service: Service
    event_time: str
    group: str
    label: str
    label_known_at: str | None = None
    window: Window = field(default_factory=Window)
    growth: Growth = field(default_factory=Growth)
    threshold: float | None = None
    precision_k: int = 100
    definitions: Mapping[str, str] = field(default_factory=dict)
    offsets: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    git_commit: str | None = None
    monitors: Monitors = field(default_factory=Monitors)


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model that is ready to be registered.

    Parameters
    ----------
    manifest : Manifest
    body : str
        LightGBM text.
    metrics : mapping of str to float
        On the holdout part; also in the manifest.
    curves : mapping of str to tuple of float
        ``validation_average_precision`` after each tree.
    groups_a_day : float
        Distinct values of the group column on a day of the holdout part, on average.
    """

    manifest: Manifest
    body: str
    metrics: Mapping[str, float]
    curves: Mapping[str, tuple[float, ...]]
    groups_a_day: float = 0.0


def train(
    features: pl.DataFrame, spec: TrainSpec, created_at_ms: int, progress: Callable[[Progress], None] | None = None
) -> TrainedModel:
    """Train a model and measure it on history it has not seen.

    Parameters
    ----------
    features : polars.DataFrame
        A row per event, in any order, with the columns that ``spec`` names.
    created_at_ms : int
        For the manifest; milliseconds since the epoch.
    progress : callable, optional
        Called after each tree.

    Raises
    ------
    Misconfigured
        If columns are missing or not numbers, a part of the split is empty, or a part has only one class.
    """
    names = [name for name, _ in spec.service.features]
    features = _usable(features, spec, names)
    times_ms = features[spec.event_time].to_numpy()
    labels = features[spec.label].to_numpy()
    known_at_ms = None
    if spec.label_known_at is not None:
        delayed = features[spec.event_time] + spec.window.label_delay_ms
        known_at_ms = features[spec.label_known_at].cast(pl.Int64).fill_null(delayed).to_numpy()
    parts = split(times_ms, spec.window, known_at_ms)
    for name, mask in parts.parts().items():
        if name != "holdout" and (labels[mask].all() or not labels[mask].any()):
            raise Misconfigured(f"all labels of the {name} part are the same: replay more history, or check --labels")
    matrix = features.select(pl.col(names).cast(pl.Float64).fill_null(float("nan"))).to_numpy()
    fitted = fit(names, matrix, labels, parts.train, parts.validation, spec.growth, progress)
    model = TextModel(fitted.body, spec.growth.threads)

    def scores(part: Mask) -> NDArray[np.float64]:
        return model.predict(np.ascontiguousarray(matrix[part].T))

    groups = features[spec.group].to_numpy()
    metrics = evaluate(
        labels[parts.holdout],
        scores(parts.holdout),
        groups[parts.holdout],
        times_ms[parts.holdout],
        spec.precision_k,
    )
    threshold = spec.threshold
    if threshold is None:
        threshold = best_f1_threshold(labels[parts.validation], scores(parts.validation))
    known = parts.holdout | parts.validation
    history = _ReferenceHistory(
        matrix, times_ms, np.where(known, labels, np.nan), int(times_ms[parts.validation].min())
    )
    manifest = Manifest(
        model=spec.model,
        service=spec.service.name,
        features=spec.service.features,
        definitions=spec.definitions,
        training=_training(spec, times_ms, labels, matrix, parts),
        metrics=metrics,
        threshold=threshold,
        profile={name: profile(matrix[parts.train, i]) for i, name in enumerate(names)},
        params={**spec.growth.params(), "trees": fitted.trees, "most_trees": spec.growth.rounds},
        libraries=_libraries(),
        git_commit=spec.git_commit,
        created_at_ms=created_at_ms,
        body_sha256=sha256(fitted.body),
        reference=_reference(history, model, spec, threshold, gains(fitted.body)),
    )
    held_out = pl.DataFrame({"day": times_ms // DAY_MS, "group": features[spec.group]}).filter(pl.Series(parts.holdout))
    a_day = held_out.n_unique() / held_out["day"].n_unique()
    return TrainedModel(manifest, fitted.body, metrics, {"validation_average_precision": fitted.curve}, a_day)


@dataclass(frozen=True, slots=True)
class _ReferenceHistory:
    """All events of the history with the labels the reference may use, and when the model's ignorance begins."""

    matrix: NDArray[np.float64]
    times_ms: NDArray[np.int64]
    labels: NDArray[np.float64]
    unseen_from_ms: int


def _reference(
    history: _ReferenceHistory, model: TextModel, spec: TrainSpec, threshold: float, importance: Mapping[str, float]
) -> ModelReference:
    """Return the reference for drift: from what the trees were not grown on or, where that is too little, all of it."""
    unseen = history.times_ms >= history.unseen_from_ms
    enough = history.times_ms.max() - history.unseen_from_ms >= (LEAST_DAYS + 1) * DAY_MS
    taken = unseen if enough else history.times_ms >= history.times_ms.min() + spec.window.warm_up_ms
    matrix = history.matrix[taken]
    try:
        return make_reference(
            [name for name, _ in spec.service.features],
            matrix,
            model.predict(np.ascontiguousarray(matrix.T)),
            history.times_ms[taken],
            history.labels[taken],
            spec.monitors,
            decision=threshold,
            importance=importance,
            watch_score=bool(enough),
        )
    except ValueError as error:
        raise Misconfigured(f"{FILE} of the feature repo: {error}") from error


def _usable(features: pl.DataFrame, spec: TrainSpec, names: list[str]) -> pl.DataFrame:
    wanted = [*names, spec.event_time, spec.group, spec.label, *([spec.label_known_at] if spec.label_known_at else [])]
    missing = [name for name in wanted if name not in features.columns]
    if missing:
        raise Misconfigured(
            f"the training data has no column {', '.join(missing)}: it must be what `millstream replay` wrote for "
            f"feature service {spec.service.name!r}, with labels joined by event id"
        )
    schema = features.schema
    wrong = [name for name in names if not (schema[name].is_numeric() or schema[name] in (pl.Boolean, pl.Null))]
    if wrong:
        raise Misconfigured(
            f"a model reads numbers, but {', '.join(f'{name} is {schema[name]}' for name in wrong)}: take it out of "
            f"feature service {spec.service.name!r} or derive a number in an on-demand view"
        )
    labelled = features.select(list(dict.fromkeys(wanted))).filter(pl.col(spec.label).is_not_null())
    if not len(labelled):
        raise Misconfigured("no event has a label: check --labels and the event ids in it")
    labels = binary_labels(labelled[spec.label])
    return labelled.with_columns(pl.col(spec.event_time).cast(pl.Int64), labels).sort(
        spec.event_time, maintain_order=True
    )


def binary_labels(column: pl.Series) -> pl.Series:
    """Return labels as booleans: 0, 1, true or false, as in every file of labels.

    Raises
    ------
    Misconfigured
        The column holds something else, such as an amount or a delay.
    """
    made = booleans(column)
    others = column.filter(made.is_null() & column.is_not_null())
    if len(others):
        raise Misconfigured(
            f"column {column.name!r} is no binary label: {len(others):,} of {len(column):,} values are neither 0, 1, "
            f"true nor false, such as {others[0]!r}. Derive a label of two classes, or name its column with "
            "--label-column"
        )
    return made


def _training(
    spec: TrainSpec, times_ms: NDArray[np.int64], labels: Mask, matrix: NDArray[np.float64], parts: Split
) -> Training:
    digest = hashlib.sha256()
    for column in matrix[parts.train].T:
        digest.update(np.ascontiguousarray(column, dtype="<f8").tobytes())
    digest.update(labels[parts.train].tobytes())
    seen = times_ms[parts.train | parts.validation]
    return Training(
        from_ms=int(seen.min()),
        to_ms=int(seen.max()),
        as_of_ms=parts.as_of_ms,
        label_delay_ms=spec.window.label_delay_ms,
        rows={name: int(mask.sum()) for name, mask in parts.parts().items()},
        positives={name: int(labels[mask].sum()) for name, mask in parts.parts().items()},
        data_sha256=digest.hexdigest(),
        offsets=spec.offsets,
    )


def _libraries() -> dict[str, str]:
    names = ("lightgbm", "millstream", "numpy", "polars", "scikit-learn")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}
