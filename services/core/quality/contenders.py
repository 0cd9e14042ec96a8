"""Scored records as what is measured: who said what of each event, and what it counts for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.core.batch import Array, Batch, Mask, Rows
from services.core.identity import id_hashes
from services.core.quality.board import Examples, Scores

ANSWER: Final = "answer"
CHAMPION: Final = "champion"
ONLINE: Final = "online"
BLEND: Final = "blend"

_GROUP_CHARACTERS: Final = 150


@dataclass(frozen=True, slots=True)
class Measured:
    """How scored records are read.

    Parameters
    ----------
    event_time : str
        Column, milliseconds since the epoch.
    positive : str
        The decision that calls an event positive.
    threshold : float
        Calls it where a model's score did not decide.
    investigated : str
        Column of what card precision counts, e.g. the card.
    group : str
        Column of the fairness view; "" for none.
    """

    event_time: str
    positive: str
    threshold: float
    investigated: str
    group: str = ""

    def contenders(self, scored: Batch) -> list[Scores]:
        """Return everybody's answers.

        Arms: ``answer`` is the answer as served, whoever gave it; ``champion`` and ``online`` are those models' own,
        served or not; ``blend`` is the answer where a blend gave it. Version 0 is the baseline's, and the online
        model's, which is another after each example.
        """
        n, columns = scored.length, scored.columns
        arm, score = columns["arm"], scored.as_floats("score")
        decided: Mask = np.asarray(columns["decision"] == self.positive, dtype=np.bool_)
        nobody = np.full(n, np.nan)
        zeros = np.zeros(n, dtype=np.int64)

        def named(name: str) -> Array:
            return np.full(n, name, dtype=object)

        def own(name: str) -> tuple[Mask, Array]:
            """Return where a model's own score was the answer, and its score: recorded beside it, or the answer."""
            served = np.asarray(arm == name, dtype=np.bool_)
            recorded = scored.as_floats(f"{name}_score") if f"{name}_score" in columns else nobody
            return served, np.where(np.isnan(recorded) & served, score, recorded)

        model, version = columns["model"], columns["model_version"]
        found = [Scores(model, version, named(ANSWER), score, decided)]
        served, champion = own(CHAMPION)
        called = np.where(served, decided, champion >= self.threshold)
        found.append(Scores(model, version, named(CHAMPION), champion, called))
        served, online = own(ONLINE)
        called = np.where(served, decided, online >= self.threshold)
        found.append(Scores(named(ONLINE), zeros, named(ONLINE), online, called))
        blended = np.where(np.asarray(arm == BLEND, dtype=np.bool_), score, nobody)
        found.append(Scores(named(BLEND), zeros, named(BLEND), blended, decided))
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
            self._investigated(batch),
            self.groups(batch),
            self.contenders(batch),
        )

    def _investigated(self, batch: Batch) -> Rows:
        return id_hashes(batch.columns[self.investigated])

    def columns(self) -> Sequence[str]:
        """Return the columns that must be there."""
        return [name for name in (self.event_time, self.investigated, self.group) if name]
