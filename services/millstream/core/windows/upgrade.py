"""Migration of changelog rows of an earlier version, which stored every column as doubles.

Only columns of 64-bit integers are kept in another way now. Their doubles are exact below 2**53 in size; where one is
larger, the integer is not known any more and the rows cannot be used.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from millstream.core.windows.integer_arithmetic import EXACT
from millstream.core.windows.rows import decode_keys, encode_key
from millstream.core.windows.values import Layout


def upgraded(rows: Mapping[bytes, bytes], layout: Layout, behind: int) -> list[tuple[bytes, bytes]] | None:
    """Return the rows with integers where they were doubles, or None where they cannot be told from them.

    Parameters
    ----------
    layout : Layout
        Of the store that reads them; its text columns were kept as a shorter hash, which nothing leads back from.
    behind : int
        Words behind the columns' and null words.
    """
    if "text" in layout.types:
        return None
    count = len(layout.columns)
    whole = np.flatnonzero(layout.null_bits >= 0)
    found: list[tuple[bytes, bytes]] = []
    for key in decode_keys(list(rows.items()), count + behind):
        body = np.frombuffer(b"".join(key.bodies), dtype=np.int64).reshape(-1, 2 + count + behind)
        reals = body[:, 2 + whole].copy().view(np.float64)
        nulls = np.isnan(reals)
        if (np.abs(reals[~nulls]) >= EXACT).any():
            return None
        entries = np.zeros((len(body), 2 + layout.width + behind), dtype=np.int64)
        entries[:, : 2 + count] = body[:, : 2 + count]
        entries[:, 2 + whole] = np.where(nulls, 0.0, reals).astype(np.int64)
        for bit in range(len(whole)):
            layout.set_nulls(entries[:, 2:], bit, nulls[:, bit])
        entries[:, 2 + layout.width :] = body[:, 2 + count :]
        found += encode_key(key.text, key.feature_time_us, entries)
    return found
