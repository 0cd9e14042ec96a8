"""Train, wait for the labels, test: which events are which, and whom the test leaves out.

References
----------
.. [1] Le Borgne, Siblini, Lebichot, Bontempi (2022), "Reproducible Machine Learning for Credit Card Fraud Detection:
       Practical Handbook", chapter 3, section "Defining the training and test sets" (``get_train_test_set``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Array, Mask
from millstream.core.metrics import DAY_MS


@dataclass(frozen=True, slots=True)
class Protocol:
    """A training part, a delay in which labels come in, and a test part, in whole days of event time.

    Parameters
    ----------
    train_from_ms : int
        Midnight of the first day, milliseconds since the epoch (UTC).
    train_days, delay_days, test_days : int, >= 1
    """

    train_from_ms: int
    train_days: int = 7
    delay_days: int = 7
    test_days: int = 7

    @property
    def test_from_ms(self) -> int:
        """When the test begins."""
        return self.train_from_ms + (self.train_days + self.delay_days) * DAY_MS

    @property
    def test_to_ms(self) -> int:
        """When it has ended."""
        return self.test_from_ms + self.test_days * DAY_MS

    def before(self, days: int) -> Protocol:
        """Return the same protocol, so many days earlier."""
        return replace(self, train_from_ms=self.train_from_ms - days * DAY_MS)

    def known_before_training(self, folds: int) -> list[Protocol]:
        """Return the newest earlier protocols, one a training length apart, whose every label is known at the test.

        They end where the training part ends at the latest: later labels are not known when the test begins. What is
        chosen by them is chosen without the test [1]_ (chapter 5, "Prequential validation").
        """
        newest = self.before(self.test_days + self.delay_days)
        return [newest.before(each * self.train_days) for each in range(folds)]


def parts(times_ms: NDArray[np.int64], labels: Mask, groups: Array, protocol: Protocol) -> tuple[Mask, Mask]:
    """Return which events a model learns from and which it is tested on.

    From each test day are left out the groups that are known as compromised when it begins: those with a positive event
    from the start of the training part up to ``delay_days`` before that day [1]_. Their cards are blocked.

    Parameters
    ----------
    times_ms : int64 ndarray of shape (n,)
        Event times, milliseconds since the epoch.
    labels : bool ndarray of shape (n,)
        True is positive.
    groups : ndarray of shape (n,)
        What is blocked: cards, customers, accounts.

    Returns
    -------
    train, test : bool ndarray of shape (n,)
    """
    since = times_ms >= protocol.train_from_ms
    train = since & (times_ms < protocol.train_from_ms + protocol.train_days * DAY_MS)
    test = np.zeros(len(times_ms), dtype=np.bool_)
    for day in range(protocol.test_days):
        from_ms = protocol.test_from_ms + day * DAY_MS
        known = since & labels & (times_ms < from_ms - protocol.delay_days * DAY_MS)
        of_day = np.flatnonzero((times_ms >= from_ms) & (times_ms < from_ms + DAY_MS))
        test[of_day] = ~np.isin(groups[of_day], np.unique(groups[known]))
    return train, test
