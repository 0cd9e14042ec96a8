"""A stage's transactions, one at a time: written in place, or by a thread while the stage goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from millstream.runtime.log.protocol import StageLog
from millstream.runtime.log.records import Output, Place
from millstream.runtime.work import Processed


@dataclass(frozen=True, slots=True)
class Transaction:
    """What is written together, and what is told of it afterwards.

    Parameters
    ----------
    outputs : list of Output
    moved : mapping of Place to int
        Offsets that it commits.
    due : list of int
        Partitions whose checkpoint is in it, of so many ``rows``, made in ``checkpoint_s`` seconds.
    processed : Processed or None
        The micro-batch in it, if one is, of so many ``records``.
    seconds : dict of str to float
        Time spent by phase: those of the micro-batch's processing, ``send`` and ``commit``.
    """

    outputs: list[Output]
    moved: Mapping[Place, int]
    due: list[int] = field(default_factory=list)
    rows: int = 0
    checkpoint_s: float = 0.0
    processed: Processed | None = None
    records: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, processed: Processed, moved: Mapping[Place, int], records: int) -> Transaction:
        """Return that of a micro-batch."""
        return cls(processed.outputs, moved, processed=processed, records=records, seconds=dict(processed.seconds))


class Transactions:
    """Writes transactions to a log.

    Attributes
    ----------
    since_s : float or None
        When the one that is being written was begun.
    """

    def __init__(self, log: StageLog, name: str, clock_s: Callable[[], float]) -> None:
        self._log = log
        self._clock_s = clock_s
        self._thread = ThreadPoolExecutor(1, name)
        self._begun: tuple[Transaction, Future[None]] | None = None
        self.since_s: float | None = None

    def write(self, transaction: Transaction) -> None:
        """Write it and return.

        Raises
        ------
        Aborted, Fenced, Stop
            It was not written; see `StageLog.commit`.
        """
        self._send(transaction)
        self._commit(transaction)

    def begin(self, transaction: Transaction) -> None:
        """Write it while the caller goes on; `settle` must be called before the next one."""
        assert self._begun is None
        self._send(transaction)
        self._begun = transaction, self._thread.submit(self._commit, transaction)

    def _send(self, transaction: Transaction) -> None:
        self.since_s = started_s = self._clock_s()
        self._log.send(transaction.outputs)
        transaction.seconds["send"] = self._clock_s() - started_s

    def _commit(self, transaction: Transaction) -> None:
        started_s = self._clock_s()
        self._log.commit(transaction.moved)
        transaction.seconds["commit"] = self._clock_s() - started_s
        self.since_s = None

    @property
    def begun(self) -> bool:
        """Whether one was begun that is not settled."""
        return self._begun is not None

    def settle(self) -> Transaction | None:
        """Wait for the one that was begun and return it; None if there is none.

        Raises
        ------
        Aborted, Fenced, Stop
            It was not written; raised again each time until `forget`.
        """
        if self._begun is None:
            return None
        transaction, answer = self._begun
        answer.result()
        self._begun = None
        return transaction

    def failed(self) -> bool:
        """Wait for the one that was begun; return whether it was not written."""
        return self._begun is not None and self._begun[1].exception() is not None

    def forget(self) -> None:
        """Forget the one that was begun, once nothing of it goes on."""
        self.failed()
        self._begun = self.since_s = None

    def close(self) -> None:
        """End the thread once nothing is written any more."""
        self._thread.shutdown()
