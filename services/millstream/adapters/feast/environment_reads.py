"""Records which environment variables definitions read: a compiled repo depends on them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def environment_reads() -> Iterator[set[str]]:
    """Yield the set that the names of variables which are read meanwhile are added to, present or not.

    Reads through ``os.environ`` and ``os.getenv`` count, in any thread.
    """
    names: set[str] = set()
    kind: Any = type(os.environ)
    original = kind.__getitem__

    def read(environ: Any, name: str) -> Any:
        names.add(name)
        return original(environ, name)

    kind.__getitem__ = read
    try:
        yield names
    finally:
        kind.__getitem__ = original
