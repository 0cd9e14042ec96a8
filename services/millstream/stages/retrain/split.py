"""Temporal split of history into training, validation and holdout rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Mask
from millstream.errors import Misconfigured

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Window:
    """The usable history and how it is cut, in event time.

    Parameters
    ----------
    from_ms, to_ms : int or None
        Event times from (inclusive) and to (exclusive); None is as far as the data goes.
    as_of_ms : int or None
        The moment of training: labels not known by then are not used. None: the last event's time.
    label_delay_ms : int
        A label is known this long after its event, unless its own time is given; >= 0.
    warm_up_ms : int
        Events this soon after the first one are left out: their longest windows are not full yet; >= 0.
    validation_share, holdout_share : float
        Shares of the usable time, at its end, for early stopping and for the metrics; in (0, 1).
    gap_ms : int or None
        Left out between validation and holdout, since a model that went live at the start of the holdout part would
        have known no label of that time. None: the label delay.
    """

    from_ms: int | None = None
    to_ms: int | None = None
    as_of_ms: int | None = None
    label_delay_ms: int = 7 * _DAY_MS
    warm_up_ms: int = 30 * _DAY_MS
    validation_share: float = 0.1
    holdout_share: float = 0.1
    gap_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """Row masks of the three parts, each bool of shape (n,) and disjoint, in time order; and the moment of training."""

    train: Mask
    validation: Mask
    holdout: Mask
    as_of_ms: int

    def parts(self) -> dict[str, Mask]:
        """Return the masks by name."""
        return {"train": self.train, "validation": self.validation, "holdout": self.holdout}


def split(times_ms: NDArray[np.int64], window: Window, known_at_ms: NDArray[np.int64] | None = None) -> Split:
    """Cut history in time: train, then validation, then a gap, then holdout.

    Parameters
    ----------
    times_ms : int64 ndarray of shape (n,)
        Event times, milliseconds since the epoch, in any order.
    window : Window
    known_at_ms : int64 ndarray of shape (n,), optional
        When each label became known; default: event time plus label delay.

    Raises
    ------
    Misconfigured
        If nothing is left, saying which setting took it all.
    """
    if not len(times_ms):
        raise Misconfigured("there are no events to train on")
    as_of_ms = int(times_ms.max()) if window.as_of_ms is None else window.as_of_ms
    known_at_ms = times_ms + window.label_delay_ms if known_at_ms is None else known_at_ms
    usable = known_at_ms <= as_of_ms
    _require(usable, f"no label is known by {as_of_ms} ms: move --as-of later or lower --label-delay")
    start_ms = int(times_ms.min()) + window.warm_up_ms
    usable &= times_ms >= max(start_ms, start_ms if window.from_ms is None else window.from_ms)
    _require(usable, "the warm-up takes all events whose label is known: replay more history or lower --warm-up")
    if window.to_ms is not None:
        usable &= times_ms < window.to_ms
        _require(usable, "no event is left before --to")
    first_ms, end_ms = int(times_ms[usable].min()), int(times_ms[usable].max()) + 1
    span_ms = end_ms - first_ms
    gap_ms = window.label_delay_ms if window.gap_ms is None else window.gap_ms
    holdout_ms = end_ms - round(span_ms * window.holdout_share)
    stop_ms = holdout_ms - gap_ms
    validation_ms = stop_ms - round(span_ms * window.validation_share)
    parts = Split(
        usable & (times_ms < validation_ms),
        usable & (times_ms >= validation_ms) & (times_ms < stop_ms),
        usable & (times_ms >= holdout_ms),
        as_of_ms,
    )
    days = span_ms / _DAY_MS
    for name, mask in parts.parts().items():
        _require(mask, f"the {name} part is empty ({days:.1f} usable days): replay more history or lower --gap")
    return parts


def _require(mask: Mask, otherwise: str) -> None:
    if not mask.any():
        raise Misconfigured(otherwise)
