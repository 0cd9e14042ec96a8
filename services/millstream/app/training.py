"""Train on replayed features and labels, register the model, put a version into service."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from millstream.app.durations import duration_ms
from millstream.errors import Misconfigured, Refused

if TYPE_CHECKING:
    import polars as pl

    from millstream.adapters.files.tabular import Declared
    from millstream.app.assembly import Assembly
    from millstream.core.declaration import Declaration
    from millstream.ports import ModelRegistry, ModelVersion
    from millstream.stages.retrain.fit import Growth, Progress
    from millstream.stages.retrain.split import Window
    from millstream.stages.retrain.train import TrainedModel


@dataclass(frozen=True, slots=True)
class Model:
    """A version of a model in the registry.

    Parameters
    ----------
    name : str
        Of the feature service.
    version : int
        Versions of a name count from 1.
    metrics : mapping of str to float
        On the holdout part.
    trained : TrainedModel
        The manifest and the model's text.
    """

    name: str
    version: int
    metrics: Mapping[str, float]
    trained: TrainedModel = field(repr=False)


_DAY_MS = 86_400_000
_SHARES = (0.01, 0.5)


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train; `millstream.Project.train` has each.

    Raises
    ------
    Misconfigured
        Naming the option that is outside of its range.
    """

    label_column: str | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    as_of_ms: int | None = None
    label_delay: str = "7d"
    warm_up: str | None = None
    gap: str | None = None
    validation: float = 0.1
    holdout: float = 0.1
    threshold: float | None = None
    rounds: int = 200
    leaves: int = 31
    seed: int = 0

    def __post_init__(self) -> None:
        _require("validation", self.validation, *_SHARES)
        _require("holdout", self.holdout, *_SHARES)
        _require("threshold", self.threshold, 0, 1)
        _require("rounds", self.rounds, 1)
        _require("leaves", self.leaves, 2)


def _require(name: str, value: float | None, least: float, most: float | None = None) -> None:
    if value is None or (least <= value and (most is None or value <= most)):
        return
    allowed = f"{least} or more" if most is None else f"{least} to {most}"
    raise Misconfigured(f"{name} is {value}; allowed: {allowed}")


def train(
    assembly: Assembly,
    features: pl.DataFrame,
    labels: Path | None,
    options: TrainOptions,
    declared: Declared,
    warn: Callable[[str], None],
    progress: Callable[[Progress], None] | None = None,
) -> Model:
    """Join labels to replayed features, train, and register the model.

    Parameters
    ----------
    features : DataFrame
        What a replay wrote as scored events.
    labels : Path, optional
        A file of labels by event id; default: a column of ``features``.
    warn : callable
        Takes sentences about labels that are left out.
    progress : callable, optional
        As in `train_and_register`.

    Raises
    ------
    Misconfigured, Retry
        As `train_and_register`; or the labels cannot be read.
    """
    from millstream.app.label_policy import label_precedence
    from millstream.app.training_data import DEFAULT_LABEL, labels_of, with_event_times, with_labels
    from millstream.stages.retrain.fit import Growth
    from millstream.stages.retrain.split import Window

    settings, contract = assembly.settings, assembly.contract
    label = options.label_column or assembly.declaration.service.tags.get("label", DEFAULT_LABEL)
    features = with_event_times(features, contract.event_time)
    if labels is not None:
        given = labels_of(labels, contract.schema[contract.event_id], options.label_column, label, declared)
        precedence = label_precedence(settings)
        within = contract.event_time, settings.label_horizon_days * _DAY_MS
        features = with_labels(features, given, contract.event_id, label, options.as_of_ms, precedence, warn, within)
    window = Window(
        from_ms=options.start_ms,
        to_ms=options.end_ms,
        as_of_ms=options.as_of_ms,
        label_delay_ms=duration_ms(options.label_delay),
        warm_up_ms=duration_ms(options.warm_up) if options.warm_up else longest_window_ms(assembly.declaration),
        validation_share=options.validation,
        holdout_share=options.holdout,
        gap_ms=duration_ms(options.gap) if options.gap else None,
    )
    growth = Growth(rounds=options.rounds, leaves=options.leaves, seed=options.seed, threads=os.cpu_count() or 1)
    return train_and_register(assembly, features, label, window, growth, options.threshold, progress)


def train_and_register(
    assembly: Assembly,
    features: pl.DataFrame,
    label: str,
    window: Window | None = None,
    growth: Growth | None = None,
    threshold: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Model:
    """Train on replayed features and register the model under the service's name.

    Parameters
    ----------
    features : DataFrame
        A row per event: event time, message key, the service's features, the label and, if there is a column of that
        name, the time the label became known (`millstream.app.training_data.KNOWN_AT`).
    label : str
        Column of 0 and 1, or boolean; null where there is no label.
    window : Window, optional
        Default: all of it, less the longest window as warm-up.
    progress : callable, optional
        Called after each tree.

    Raises
    ------
    Misconfigured
        The data cannot be learnt from; says why.
    Retry
        The registry cannot be reached.
    """
    from millstream.adapters.models.registry import open_registry
    from millstream.app.training_data import KNOWN_AT
    from millstream.core.models.manifest import define
    from millstream.stages.retrain.fit import Growth
    from millstream.stages.retrain.split import Window
    from millstream.stages.retrain.train import TrainSpec
    from millstream.stages.retrain.train import train as fit

    declaration, contract = assembly.declaration, assembly.contract
    spec = TrainSpec(
        model=declaration.service.name,
        service=declaration.service,
        event_time=contract.event_time,
        group=contract.key,
        label=label,
        label_known_at=KNOWN_AT if KNOWN_AT in features.columns else None,
        window=window or Window(warm_up_ms=longest_window_ms(declaration)),
        growth=growth or Growth(threads=os.cpu_count() or 1),
        threshold=threshold,
        definitions=define(declaration),
        git_commit=_commit(assembly.settings.feature_repo),
        monitors=assembly.monitors,
    )
    trained = fit(features, spec, time.time_ns() // 1_000_000, progress)
    made = open_registry(assembly.settings).register(
        spec.model, trained.manifest.to_json(), trained.body, trained.metrics
    )
    return Model(made.name, made.version, trained.metrics, trained)


def longest_window_ms(declaration: Declaration) -> int:
    """Return the longest window among the features the service reads: before it has passed, they are not full."""
    read = {name for name, _ in declaration.service.features}
    return max(
        (
            aggregate.window_ms
            for view in declaration.views
            for column, aggregate in zip(view.columns, view.aggregates, strict=True)
            if column in read
        ),
        default=0,
    )


def put_into_service(
    registry: ModelRegistry, kafka: Mapping[str, str], declaration: Declaration, name: str, version: int
) -> ModelVersion:
    """Make a version champion and publish it to every scorer, once it is known to fit the feature repo.

    Raises
    ------
    Refused
        There is no such version, or it does not fit; nothing has changed.
    Retry
        Kafka or the registry cannot be reached; doing it again is safe.
    """
    from millstream.adapters.kafka.promotions import publish
    from millstream.core.models.manifest import define
    from millstream.stages.score.scorer import Champion

    offered = registry.load(name, version)
    if offered is None:
        raise Refused(f"model {name!r} has no version {version}; see `millstream models list`")
    Champion.load(offered, declaration.service, definitions=define(declaration))
    registry.promote(name, version)
    publish(kafka, offered)
    return offered


def promote(assembly: Assembly, kafka: Mapping[str, str], version: int) -> None:
    """Put a version of the service's model into service; raises as `put_into_service` does."""
    from millstream.adapters.models.registry import open_registry

    declaration = assembly.declaration
    put_into_service(open_registry(assembly.settings), kafka, declaration, declaration.service.name, version)


def _commit(folder: Path) -> str | None:
    """Return the commit of the feature repo, marked if it has changes; None if it is not under git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except FileNotFoundError:
        return None
    return asked.stdout.strip() or None
