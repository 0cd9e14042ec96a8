"""Recovery of a ledger: the offsets to replay from, so that it is valid for the committed ones.

The store is written *after* the transaction whose outputs follow from it, so it is at or behind the committed
offsets: a crash between the two leaves it behind, and replaying from its own offsets to the committed ones, silently,
makes it whole. It is ahead only if the group or the topics were reset. A store that is ahead holds
statements whose examples may never have been published, and nothing in it shows which: it is deleted, and the
ledger is rebuilt from the retained topics up to the committed offsets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from millstream.core.generations import generation_of


@dataclass(frozen=True, slots=True)
class Recovery:
    """How to make a ledger valid for the committed offsets; all mappings are by topic.

    Parameters
    ----------
    discard : bool
        Clear the store first.
    replay : mapping of str to (int, int)
        Offsets to fold silently: from the first, before the second; topics with none are left out.
    go_on : mapping of str to int
        Offsets to consume from afterwards.
    lost : mapping of str to int
        Records that would have been needed and are no longer retained.
    """

    discard: bool
    replay: Mapping[str, tuple[int, int]]
    go_on: Mapping[str, int]
    lost: Mapping[str, int]


def plan_recovery(
    stored: Mapping[str, int], committed: Mapping[str, int | None], retained: Mapping[str, range]
) -> Recovery:
    """Plan the recovery of one partition.

    Parameters
    ----------
    stored : mapping of str to int
        Offsets the store is valid for; a topic it has never read is absent.
    committed : mapping of str to (int or None)
        The group's offsets, of every input topic; None where it never committed or Kafka has forgotten.
    retained : mapping of str to range
        Offsets retained, of every input topic. A store beyond their end is of a topic that was recreated since.

    Examples
    --------
    >>> plan_recovery({"labels": 5}, {"labels": 7}, {"labels": range(8)}).replay
    {'labels': (5, 7)}
    >>> plan_recovery({"labels": 9}, {"labels": 7}, {"labels": range(8)})
    Recovery(discard=True, replay={'labels': (0, 7)}, go_on={'labels': 7}, lost={})
    """
    go_on: dict[str, int] = {}
    for topic, offsets in retained.items():
        known, held = committed[topic], stored.get(topic, offsets.start)
        ours = held if offsets.start <= held <= offsets.stop else offsets.start
        go_on[topic] = ours if known is None else known
    discard = any(stored.get(topic, 0) > offset for topic, offset in go_on.items())
    replay: dict[str, tuple[int, int]] = {}
    lost: dict[str, int] = {}
    for topic, end in go_on.items():
        wanted = 0 if discard else stored.get(topic, 0)
        start = max(wanted, retained[topic].start)
        if start < end:
            replay[topic] = (start, end)
        if generation_of(wanted) == generation_of(end) and wanted < min(retained[topic].start, end):
            lost[topic] = min(retained[topic].start, end) - wanted
    return Recovery(discard, replay, go_on, lost)
