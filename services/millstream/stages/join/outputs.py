"""Outputs of the join: of one micro-batch, and of one expiry of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from millstream.runtime.flow import Flow
from millstream.runtime.log.records import Output
from millstream.stages.join.completeness import CompletenessUpdate


@dataclass(frozen=True, slots=True)
class JoinOutput:
    """What a micro-batch became.

    Parameters
    ----------
    keys, examples : list of bytes, of one length
        Messages for the transaction.
    rekeyed : list of Output
        The same, cut down and keyed by an entity, for the stage that keeps its label windows.
    labels : Flow
        The labels, with the rejected ones; for dead letters.
    puts : list of (bytes, bytes)
        Rows for the store once the transaction is committed.
    deleted : list of bytes
        Keys of rows to delete then, before the puts.
    oldest_ms : int
        Oldest time that the puts add to the index.
    counted : CompletenessUpdate
        What is added to the account.
    sources : mapping of int to str
        Names of sources met for the first time.
    """

    keys: list[bytes]
    examples: list[bytes]
    rekeyed: list[Output]
    labels: Flow
    puts: list[tuple[bytes, bytes]]
    deleted: list[bytes]
    oldest_ms: int
    counted: CompletenessUpdate
    sources: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class ExpiryOutput:
    """What was found past the horizon.

    Parameters
    ----------
    forgotten, retired : int
        Predictions that no label came for, and labelled ones that can no longer be corrected.
    unmatched : list of bytes
        Ids of events that have labels and never had a prediction. After a crash some may be reported again.
    more : bool
        There is more to sweep.
    """

    forgotten: int
    retired: int
    unmatched: list[bytes]
    more: bool
