"""Values as the text that keys a message."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from millstream.core.batch import Array


def as_text(values: Array) -> list[bytes]:
    """Return the UTF-8 text of each value: decimal for integers, the string itself for strings.

    Examples
    --------
    >>> as_text(np.array([7, -12]))
    [b'7', b'-12']
    """
    if values.dtype == np.int64:
        return [b"%d" % value for value in values.tolist()]
    return [str(value).encode() for value in values.tolist()]


def few(names: Sequence[str], most: int = 3) -> str:
    """Return names for a sentence: the first few, and how many more there are.

    Examples
    --------
    >>> few(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
