"""What can go wrong, sorted by what must be done about it.

::

    MillstreamError
    ├── Retry            the same call may succeed shortly (broker away, timeout)
    ├── Aborted          a transaction was aborted and nothing was written: drop state in memory and rejoin the group
    │   └── Rebalanced       because the group has a newer generation
    ├── Stop             the process must leave; its transaction stays aborted and the restart recovers
    │   ├── Misconfigured    settings, contracts or feature repo are wrong; the message names the key and the remedy
    │   └── Fenced           another worker owns this work now
    └── Refused          an offered artefact (model, snapshot) does not fit; the present one goes on

Bad *input* is none of these: it is a value, `millstream.core.batch.Rejection`, and ends in the dead-letter topic.
"""


class MillstreamError(Exception):
    """Base of every error Millstream raises on purpose; its message holds what to do."""


class Retry(MillstreamError):
    """The operation may succeed if tried again in place, in order."""


class Aborted(MillstreamError):
    """The transaction was aborted and nothing of it is visible; state in memory must be dropped, then rejoin."""


class Rebalanced(Aborted):
    """The group has a newer generation than the one the transaction was written for."""


class Stop(MillstreamError):
    """The process must stop without committing; the orchestrator restarts it."""


class Misconfigured(Stop):
    """A setting, contract or declaration is wrong; restarting alone will not help."""


class Fenced(Stop):
    """A newer owner has taken over; this process must not write any more."""


class Refused(MillstreamError):
    """A model or snapshot was offered that does not fit what is running."""
