"""Champions as they would have been live: trained on the labels known by then, answering until the next one is."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.progress import Progress, TaskID

from millstream.adapters.models.lightgbm_model import TextModel
from millstream.adapters.models.river_pipelines import CHAMPION_SCORE
from millstream.app.assembly import Assembly
from millstream.app.training import longest_window_ms
from millstream.core.batch import Array, Batch, Mask
from millstream.errors import Misconfigured
from millstream.stages.retrain.fit import Growth
from millstream.stages.retrain.split import Window
from millstream.stages.retrain.train import TrainSpec, binary_labels, train
from millstream_lab.evaluation.compare import History
from millstream_lab.evaluation.reference import LABEL

Floats = NDArray[np.float64]
Times = NDArray[np.int64]

_HOLDOUT = 0.02
"""Of each training's history: it is measured on what comes after."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is answered, and by whom.

    Parameters
    ----------
    from_ms : int
        First event answered; milliseconds since the epoch.
    warm_up_ms : int
        So long before, a first champion answers, and the online model begins to learn from its examples.
    every_ms : int
        How often the retrained champion is retrained, from ``from_ms`` on.
    history_ms : int
        How much each training sees.
    label_delay_ms : int
        A label is known so long after its event.
    online_share : float
        Weight of the online model's probability in the blend, in [0, 1].
    """

    from_ms: int
    warm_up_ms: int
    every_ms: int
    history_ms: int
    label_delay_ms: int
    online_share: float = 0.5

    @property
    def began_ms(self) -> int:
        """When the first champion begins to answer."""
        return self.from_ms - self.warm_up_ms


@dataclass(frozen=True, slots=True)
class Events:
    """Events from a plan's beginning on, in order of event time, n rows.

    Parameters
    ----------
    names : list of str, length f
        Features of the service.
    matrix : float64 ndarray of shape (n, f)
        NaN is null.
    times_ms : int64 ndarray of shape (n,)
    labels : bool ndarray of shape (n,)
    groups : ndarray of shape (n,)
        Message keys: cards.
    """

    names: list[str]
    matrix: Floats
    times_ms: Times
    labels: Mask
    groups: Array

    def take(self, rows: Mask) -> Events:
        """Return some of them."""
        return Events(self.names, self.matrix[rows], self.times_ms[rows], self.labels[rows], self.groups[rows])

    def answered_by(self, champion: Floats, label_delay_ms: int) -> History:
        """Return them with a champion's scores, as the online model is taught."""
        columns = {name: self.matrix[:, place] for place, name in enumerate(self.names)}
        batch = Batch(len(self.labels), columns | {CHAMPION_SCORE: champion})
        return History(batch, self.times_ms, self.times_ms + label_delay_ms, self.labels, self.groups)


def events_from(assembly: Assembly, history: pl.DataFrame, plan: Plan) -> Events:
    """Return the events that a plan is about.

    Parameters
    ----------
    history : DataFrame
        A row per event, in event time order: event time, message key, the service's features, the label.

    Raises
    ------
    Misconfigured
        The stream does not reach that far.
    """
    contract = assembly.contract
    times_ms = history[contract.event_time].cast(pl.Int64).to_numpy()
    if times_ms[0] > plan.began_ms - plan.label_delay_ms or times_ms[-1] < plan.from_ms:
        raise Misconfigured("the stream does not reach over the warm-up and what is to be answered; see --from")
    first = int(np.searchsorted(times_ms, plan.began_ms))
    served = history[first:]
    names = [name for name, _ in assembly.declaration.service.features]
    matrix = served.select(pl.col(names).cast(pl.Float64).fill_null(float("nan"))).to_numpy()
    labels, groups = binary_labels(served[LABEL]).to_numpy(), served[contract.key].to_numpy()
    return Events(names, np.ascontiguousarray(matrix), times_ms[first:], labels, groups)


def moments(plan: Plan, to_ms: int) -> list[int]:
    """Return the training times of a retrained champion; the first is the one that warms up."""
    return [plan.began_ms, *range(plan.from_ms, to_ms, plan.every_ms)]


def grow(
    assembly: Assembly, history: pl.DataFrame, at: Sequence[int], plan: Plan, bar: Progress
) -> dict[int, TextModel]:
    """Train a champion at each moment, on the labels known by then."""
    declaration, contract = assembly.declaration, assembly.contract
    growth = Growth(threads=os.cpu_count() or 1)
    task = bar.add_task("train champions", total=len(at) * growth.rounds, note="")
    time = pl.col(contract.event_time).cast(pl.Int64)
    full_ms = int(history.select(time.min()).item()) + longest_window_ms(declaration)
    models = {}
    for place, at_ms in enumerate(at):
        window = Window(
            as_of_ms=at_ms, label_delay_ms=plan.label_delay_ms, warm_up_ms=0, holdout_share=_HOLDOUT, gap_ms=0
        )
        spec = TrainSpec(
            model=declaration.service.name, service=declaration.service, event_time=contract.event_time,
            group=contract.key, label=LABEL, window=window, growth=growth,
        )  # fmt: skip
        known = history.filter((time >= max(full_ms, at_ms - plan.history_ms)) & (time < at_ms))

        def show(grown: Any, place: int = place, at_ms: int = at_ms) -> None:
            note = f"{day(at_ms)}, validation AP {grown.best:.3f}"
            bar.update(task, completed=place * growth.rounds + grown.trees, note=note)

        models[at_ms] = TextModel(train(known, spec, at_ms, show).body, 1)
    bar.update(task, completed=len(at) * growth.rounds)
    return models


def served(models: Mapping[int, TextModel], at: Sequence[int], events: Events) -> Floats:
    """Return each event's score by the newest champion of its time, shape (n,)."""
    scores = np.full(len(events.times_ms), np.nan)
    for at_ms, until_ms in zip(at, [*at[1:], 1 << 62], strict=True):
        rows = np.flatnonzero((events.times_ms >= at_ms) & (events.times_ms < until_ms))
        if len(rows):
            scores[rows] = models[at_ms].predict(np.ascontiguousarray(events.matrix[rows].T))
    return scores


def advance(bar: Progress, task: TaskID) -> Callable[[int], None]:
    """Return what shows how many events are done."""
    return lambda done: bar.update(task, completed=done)


def day(at_ms: int) -> str:
    """Return the day of a time."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).date().isoformat()
