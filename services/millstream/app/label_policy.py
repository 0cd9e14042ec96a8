"""Which of several labels of an event is believed, as the settings declare it."""

from __future__ import annotations

from millstream.core.ledger.resolution import Policy
from millstream.errors import Misconfigured
from millstream.settings import Settings


def label_precedence(settings: Settings) -> tuple[str, ...]:
    """Return the declared sources of labels, the most trusted first."""
    return tuple(each.strip() for each in settings.label_precedence.split(",") if each.strip())


def label_policy(settings: Settings) -> Policy:
    """Return the policy that the join, a replay and training share.

    Raises
    ------
    Misconfigured
        A label source is given precedence twice.
    """
    try:
        return Policy(label_precedence(settings), settings.label_horizon_days * 86_400_000)
    except ValueError as error:
        raise Misconfigured(f"MILLSTREAM_LABEL_PRECEDENCE: {error}") from error
