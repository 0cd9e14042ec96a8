"""Scored records and examples as input of the quality figures: the score of each model, and the group of each event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from millstream.core.batch import Array, Batch, Mask
from millstream.core.identity import id_hashes
from millstream.core.quality.board import Examples, Scores

ANSWER: Final = "answer"
CHAMPION: Final = "champion"
ONLINE: Final = "online"
BLEND: Final = "blend"

_GROUP_CHARACTERS: Final = 150


@dataclass(frozen=True, slots=True)
class ScoredRecords:
    """How scored records are read.

    Parameters
    ----------
    event_time : str
        Column, milliseconds since the epoch.
    model : str
        Name of the champion, whatever its version.
    positive : str
        The decision that calls an event positive.
    threshold : float
        Calls positive where the record does not say what was the threshold then.
    investigated : str
        Column of what card precision counts, e.g. the card.
    group : str
        Column of the fairness view; "" for none.
    online_share : float
        Weight of the online model's probability in the blend, in [0, 1].
    """

    event_time: str
    model: str
    positive: str
    threshold: float
    investigated: str
    group: str = ""
    online_share: float = 0.5

    def contenders(self, scored: Batch) -> list[Scores]:
        """Return everybody's answers.

        Arms: ``answer`` is the answer as served, by any model; ``champion`` and ``online`` are those models' own
        scores, whichever answered; ``blend`` is the declared mix of the two, or what a blend answered. Version 0 is the
        baseline's, and the online model's, which is another after each example. All are called at the threshold of the
        answer.
        """
        n, columns = scored.length, scored.columns
        none = np.zeros(n, dtype=np.int64)

        def named(name: str) -> Array:
            return np.full(n, name, dtype=object)

        threshold = scored.as_floats("threshold")
        threshold = np.where(np.isnan(threshold), self.threshold, threshold)
        score, arm = scored.as_floats("score"), columns["arm"]
        decided: Mask = np.asarray(columns["decision"] == self.positive, dtype=np.bool_)
        champion, online = scored.as_floats("champion_score"), scored.as_floats("online_score")
        mixed = (1.0 - self.online_share) * champion + self.online_share * online
        blend = np.where(np.asarray(arm == BLEND, dtype=np.bool_), score, mixed)
        answering = np.where(np.asarray(arm == ONLINE, dtype=np.bool_), 0, columns["model_version"])
        versions = np.where(scored.is_null("champion_version"), 0, columns["champion_version"])
        found = [
            Scores(columns["model"], answering, named(ANSWER), score, decided),
            Scores(named(self.model), versions, named(CHAMPION), champion, champion >= threshold),
            Scores(named(ONLINE), none, named(ONLINE), online, online >= threshold),
            Scores(named(BLEND), none, named(BLEND), blend, blend >= threshold),
        ]
        return [each for each in found if not np.isnan(each.score).all()]

    def groups(self, scored: Batch) -> Array:
        """Return each event's group as ``column=value``; "" without a group column."""
        out = np.full(scored.length, "", dtype=object)
        if self.group:
            values, nulls = scored.columns[self.group].tolist(), scored.is_null(self.group).tolist()
            out[:] = [
                f"{self.group}={'' if null else str(value)[:_GROUP_CHARACTERS]}"
                for value, null in zip(values, nulls, strict=True)
            ]
        return out

    def examples(self, batch: Batch) -> Examples:
        """Return examples, as ``schemas/examples.avsc`` and the scored record have them, for the board."""
        labels = np.where(batch.is_null("label"), -1, batch.columns["label"]).astype(np.int64)
        return Examples(
            id_hashes(batch.columns["event_id"]),
            batch.columns["revision"],
            labels,
            batch.columns[self.event_time],
            batch.columns["label_known_at_ms"],
            id_hashes(batch.columns[self.investigated]),
            self.groups(batch),
            self.contenders(batch),
            _histories(batch),
        )


def _histories(batch: Batch) -> list[str | None]:
    """Return each example's history; None where a version without it wrote the example."""
    if "belief_history" not in batch.columns:
        return [None] * batch.length
    nulls = batch.is_null("belief_history").tolist()
    values = batch.columns["belief_history"].tolist()
    return [None if null else value for null, value in zip(nulls, values, strict=True)]
