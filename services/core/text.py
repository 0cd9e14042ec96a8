"""Values as the text that keys a message."""

from __future__ import annotations

import numpy as np

from services.core.batch import Array


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
