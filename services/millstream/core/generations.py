"""Positions in a topic that may have been deleted and created again under its name.

Offsets of the new log begin at 0 again, so a stored offset does not say which log it is of. Stored offsets therefore
carry the generation of their topic: 0 for the first log that a project worked on, 1 for the next one, and so on. They
ascend through generations, and as long as a topic is never recreated they are Kafka's own offsets.
"""

from __future__ import annotations

from typing import Final

GENERATION: Final = 10**12
"""Offsets of one generation; the next one's begin above. No partition holds so many records."""


def generation_of(offset: int) -> int:
    """Return the generation of the topic that a stored offset is of.

    Examples
    --------
    >>> generation_of(25), generation_of(2_000_000_000_025)
    (0, 2)
    """
    return offset // GENERATION
