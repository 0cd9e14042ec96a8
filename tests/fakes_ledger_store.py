"""A `LedgerStore` in a dictionary, which survives being closed as a disk does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from millstream.errors import Stop


class FakeLedgerStore:
    """Rows and offsets in memory.

    Attributes
    ----------
    full : bool
        True while the disk refuses to be written.
    """

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.valid_for: dict[str, int] = {}
        self.full = False

    def offsets(self) -> Mapping[str, int]:
        """Return the offsets."""
        return dict(self.valid_for)

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values."""
        return [self.rows.get(key) for key in keys]

    def scan(self, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Return rows in order."""
        return sorted((key, value) for key, value in self.rows.items() if start <= key < end)[:limit]

    def write(
        self, keys: Sequence[bytes], values: Sequence[bytes], deleted: Sequence[bytes], offsets: Mapping[str, int]
    ) -> None:
        """Write all or nothing."""
        if self.full:
            raise Stop("the fake disk is full")
        for key in deleted:
            self.rows.pop(key, None)
        self.rows.update(zip(keys, values, strict=True))
        self.valid_for.update(offsets)

    def clear(self) -> None:
        """Lose everything."""
        self.rows.clear()
        self.valid_for.clear()

    def close(self) -> None:
        """Do nothing."""
