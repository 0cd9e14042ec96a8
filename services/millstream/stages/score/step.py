"""The scoring step: completes the features, then answers with champion, online model, both, or the rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from millstream.adapters.models.river_model import OnlineScorer
from millstream.core.batch import Array, Batch, Mask
from millstream.core.declaration import OnDemandView, Service
from millstream.runtime.flow import Flow
from millstream.stages.score.on_demand import compute
from millstream.stages.score.online import Online
from millstream.stages.score.policy import SHADOW, AnswerPolicy
from millstream.stages.score.scorer import Champion, Scorer

Carried = Callable[[Batch], tuple[dict[str, Array], dict[str, Mask]]]
"""Reads batch features of these rows (columns and null masks); must not raise or wait."""


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
    online : Online, optional
        The online model; default: there is none.
    policy : AnswerPolicy
        Whose score is the answer.
    """

    def __init__(
        self,
        service: Service,
        on_demand: Sequence[OnDemandView],
        carried: Carried | None = None,
        online: Online | None = None,
        policy: AnswerPolicy = SHADOW,
    ) -> None:
        self._on_demand = tuple(on_demand)
        self._carried = carried
        self._scorer = Scorer(service, online=online, policy=policy)

    @property
    def champion(self) -> Champion | None:
        """The model that answers at present."""
        return self._scorer.champion

    def swap(self, champion: Champion) -> None:
        """Answer with this model from the next micro-batch on."""
        self._scorer.champion = champion

    @property
    def online(self) -> OnlineScorer | None:
        """The snapshot of the online model that is asked at present."""
        return self._scorer.online.scorer

    def swap_online(self, scorer: OnlineScorer) -> None:
        """Ask this snapshot from the next micro-batch on."""
        self._scorer.online.scorer = scorer

    def __call__(self, flow: Flow, now_ms: int) -> Flow:
        """Return the flow with every feature, all that `Answer` has, and ``scored_at_ms``."""
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
        answer = self._scorer.score(batch)
        stamped = {"scored_at_ms": np.full(batch.length, now_ms, dtype=np.int64)}
        scored = batch.with_columns({**answer.columns, **stamped}, answer.nulls)
        return replace(flow, batch=scored, counts={**flow.counts, **answer.counts})
