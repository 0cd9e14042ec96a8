"""The answer policy: champion, online model, or a declared mix of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Mask

Floats = NDArray[np.float64]
Answering = Literal["champion", "online", "blend"]

CHAMPION: Final = "champion"
ONLINE: Final = "online"
BLEND: Final = "blend"
BASELINE: Final = "baseline"


@dataclass(frozen=True, slots=True)
class AnswerPolicy:
    """Whose score is the answer; the other contenders' scores are only recorded.

    Parameters
    ----------
    answer : "champion", "online" or "blend"
        With ``champion``, the online model is a shadow.
    online_share : float
        Weight of the online model's probability in a blend, in [0, 1].
    """

    answer: Answering = CHAMPION
    online_share: float = 0.5

    @property
    def online_role(self) -> str:
        """What the online model is used for, in words."""
        roles = {
            CHAMPION: "in the champion's shadow",
            ONLINE: "answering",
            BLEND: f"{self.online_share:g} of each answer",
        }
        return roles[self.answer]

    def choose(self, given: Floats, championed: Mask, online: Floats) -> tuple[Floats, Mask]:
        """Return the answers, and which rows are answered by this policy's arm rather than by the champion or the rule.

        A blend is of the champion and the online model; where one of the two is missing, what would answer without an
        online model does.

        Parameters
        ----------
        given : float64 ndarray of shape (n,), in [0, 1]
            The champion's scores where ``championed``, elsewhere those of the declared rule.
        championed : bool ndarray of shape (n,)
        online : float64 ndarray of shape (n,), in [0, 1]
            NaN where the online model gave no score.
        """
        if self.answer == CHAMPION:
            return given, np.zeros(len(given), dtype=np.bool_)
        scored = ~np.isnan(online)
        if self.answer == ONLINE:
            return np.where(scored, online, given), scored
        blended = scored & championed
        mixed = (1.0 - self.online_share) * given + self.online_share * online
        return np.where(blended, np.clip(mixed, 0.0, 1.0), given), blended


SHADOW: Final = AnswerPolicy()
"""The champion answers, the online model is only recorded."""
