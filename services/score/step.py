"""Complete the features, then answer with the champion or, without one, with the declared rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from services.core.batch import Array, Batch, Mask
from services.core.declaration import OnDemandView, Service
from services.score.on_demand import compute
from services.score.scorer import Champion, Scorer
from services.transport.flow import Flow

Carried = Callable[[Batch], tuple[dict[str, Array], dict[str, Mask]]]
"""Reads features that somebody else materialised for these rows (columns and null masks); must not raise or wait."""


class Score:
    """The last step: on-demand features, carried batch features, score and decision.

    Parameters
    ----------
    service : Service
        What the model reads.
    on_demand : sequence of OnDemandView
        Row-level transforms, in declared order; a later one may read an earlier one's output.
    carried : callable or None
        Reader of batch views.
    """

    def __init__(self, service: Service, on_demand: Sequence[OnDemandView], carried: Carried | None = None) -> None:
        self._on_demand = tuple(on_demand)
        self._carried = carried
        self._scorer = Scorer(service)

    @property
    def champion(self) -> Champion | None:
        """The model that answers at present."""
        return self._scorer.champion

    def swap(self, champion: Champion) -> None:
        """Answer with this model from the next micro-batch on."""
        self._scorer.champion = champion

    def __call__(self, flow: Flow, now_ms: int) -> Flow:
        """Return the flow with every feature, the score, the decision and ``scored_at_ms``."""
        for view in self._on_demand:
            columns, nulls, rejections = compute(view, flow.batch)
            flow = replace(flow, batch=flow.batch.with_columns(columns, nulls))
            if rejections:
                sound = np.ones(flow.batch.length, dtype=np.bool_)
                sound[[each.row for each in rejections]] = False
                flow = flow.keep(sound, rejections)
        if self._carried is not None:
            flow = replace(flow, batch=flow.batch.with_columns(*self._carried(flow.batch)))
        batch = flow.batch
        scores = self._scorer.score(batch)
        stamped = {"scored_at_ms": np.full(batch.length, now_ms, dtype=np.int64)}
        return replace(flow, batch=batch.with_columns({**scores, **stamped}))
