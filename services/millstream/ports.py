"""What the engine requires of outside systems, as protocols; each has a fake that passes the same contract suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from millstream.core.batch import Array


@dataclass(frozen=True, slots=True)
class ViewRows:
    """The newest feature values of some keys of one entity, for the online store.

    Parameters
    ----------
    view : str
        View name.
    keys : ndarray of shape (n,), int64 or object of str
        Entity key values; each at most once.
    features : float64 ndarray of shape (n, len(view.aggregates))
        Columns in the view's declared order; NaN is null.
    feature_time_us : int64 ndarray of shape (n,)
        Microseconds since the epoch, strictly increasing per key from one write to the next.
    wholes : int64 ndarray of the shape of ``features``, optional
        Features declared whole numbers, exactly, where ``features`` may hold the nearest double only.
    """

    view: str
    keys: Array
    features: NDArray[np.float64]
    feature_time_us: NDArray[np.int64]
    wholes: NDArray[np.int64] | None = None

    def take(self, which: slice | Array) -> ViewRows:
        """Return some of the rows."""
        wholes = None if self.wholes is None else self.wholes[which]
        return ViewRows(self.view, self.keys[which], self.features[which], self.feature_time_us[which], wholes)


class OnlineView(Protocol):
    """The online store as the engine writes it: a view that may lag or vanish, never the source of truth."""

    def write(self, rows: Sequence[ViewRows]) -> int:
        """Write rows unless a newer one is stored; return how many were applied.

        Raises
        ------
        Retry
            The store cannot be reached or refused for now; nothing about the rows is known, writing again is safe.
        """

    def epoch(self) -> str | None:
        """Return the mark left by `mark_epoch`, or None if the store lost its data (or never had any)."""

    def mark_epoch(self, epoch: str) -> None:
        """Write a mark whose absence later shows that the store lost its data."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A model as it travels: registry to promotion event to scorers.

    ``manifest`` is the JSON text described in `millstream.core.models.manifest`; ``body`` is the LightGBM text model.
    """

    name: str
    version: int
    manifest: str
    body: str
    sha256: str


class ModelRegistry(Protocol):
    """Where trained models are kept and one of them is champion."""

    def register(self, name: str, manifest: str, body: str, metrics: Mapping[str, float]) -> ModelVersion:
        """Store a new version; versions of a name count up from 1."""

    def load(self, name: str, version: int | None = None) -> ModelVersion | None:
        """Return a version, or the champion when ``version`` is None; None when there is none."""

    def promote(self, name: str, version: int) -> ModelVersion:
        """Make this version champion.

        Raises
        ------
        Refused
            If there is no such version.
        """

    def previous(self, name: str) -> int | None:
        """Return the version that was champion before the present one (what a rollback goes to), or None."""

    def versions(self, name: str) -> list[tuple[int, Mapping[str, float], bool]]:
        """Return (version, metrics, is champion), oldest first."""


class LedgerStore(Protocol):
    """The rows of one partition's label ledger, in order of their keys, and the offsets they are valid for.

    A store that was opened is empty or valid for exactly `offsets`, whatever happened to the process that wrote it.
    """

    def offsets(self) -> Mapping[str, int]:
        """Return, per input topic, the offset before which everything is in the rows; {} if the store is new."""

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values at these keys, None where there is none."""

    def scan(self, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Return the first rows with start <= key < end, in order of their keys, at most ``limit``."""

    def write(
        self, keys: Sequence[bytes], values: Sequence[bytes], deleted: Sequence[bytes], offsets: Mapping[str, int]
    ) -> None:
        """Put rows, delete rows and set offsets (those of other topics stay), all or nothing.

        Raises
        ------
        Stop
            The disk refuses, e.g. it is full; nothing was written.
        """

    def clear(self) -> None:
        """Lose every row and offset."""

    def close(self) -> None:
        """Let go of the files; nothing else may be called afterwards."""
