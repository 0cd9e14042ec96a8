"""State rows in blocks: an incomplete block of an interrupted checkpoint is ignored.

::

    marker {"begun": true}, rows, marker

Exactly once, a block is one transaction and never cut off. At least once it may be: its rows are then left out, and the
next checkpoint restores them, as compaction may take away the marker that the block began with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

MARKER: Final = b"m"
BEGUN: Final = json.dumps({"begun": True}).encode()


class Blocks:
    """The rows of whole blocks, as records are read in order.

    Attributes
    ----------
    rows : dict of bytes to bytes
        By key, the last marker included.
    """

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self._open: dict[bytes, bytes | None] | None = None
        self._cut_off: dict[bytes, None] = {}

    def take(self, key: bytes | None, value: bytes | None) -> None:
        """Take a record."""
        if key is None:
            return
        if key != MARKER:
            if self._open is not None:
                self._open[key] = value
            else:
                self._put(key, value)
            return
        if value == BEGUN:
            self._cut_off |= dict.fromkeys(self._open or ())
            self._open = {}
            return
        for row, held in (self._open or {}).items():
            self._put(row, held)
        self._open, self._cut_off = None, {}
        self._put(key, value)

    def _put(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = value

    @property
    def cut_off(self) -> Mapping[bytes, bytes | None]:
        """Rows that a block which was cut off may have written, with what they must be."""
        keys = self._cut_off | dict.fromkeys(self._open or ())
        return {key: self.rows.get(key) for key in keys}


def records_of(rows: Mapping[bytes, bytes | None]) -> tuple[list[bytes], list[bytes | None]]:
    """Return keys and values of the records of a block; the marker is the last of its rows."""
    return [MARKER, *rows], [BEGUN, *rows.values()]
