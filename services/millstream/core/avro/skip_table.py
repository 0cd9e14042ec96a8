"""Types as rows of a matrix, by which the kernel skips a value that a reader does not know.

A row is ``KIND, FIRST, COUNT``: of a record and a union the rows ``FIRST`` to ``FIRST + COUNT - 1`` are edges, whose
``FIRST`` is the row of a field's or branch's type; of an array and a map ``FIRST`` is the row of the items' type; of an
enum and a fixed ``COUNT`` is the number of symbols or bytes. A type whose values take no bytes (null, fixed of size 0,
a record of such) is a ``SKIP_NOTHING``, so that every step over another row consumes input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from millstream.core.avro import skip_kernel as kernel
from millstream.core.avro.schema_type import NAMED

_KINDS: Final = {
    "null": kernel.SKIP_NOTHING,
    "boolean": kernel.SKIP_BOOLEAN,
    "int": kernel.SKIP_INT,
    "long": kernel.SKIP_LONG,
    "float": kernel.SKIP_FLOAT,
    "double": kernel.SKIP_DOUBLE,
    "string": kernel.SKIP_STRING,
    "bytes": kernel.SKIP_BYTES,
}


class SkipTable:
    """Collects the rows of one writer's types.

    Parameters
    ----------
    names : mapping of str to definition
        The writer's named types.
    """

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names
        self._sized = _sized_records(names)
        self._placed: dict[str, int] = {}
        self.rows: list[list[int]] = []

    def place(self, kind: Any) -> int:
        """Return the row of a normalized type, adding what is not there yet."""
        waiting: list[tuple[int, Any]] = []
        first = self._row(kind, waiting)
        while waiting:  # not by recursion: types may be nested as deeply as JSON allows
            edge, inner = waiting.pop()
            self.rows[edge][1] = self._row(inner, waiting)
        return first

    def _row(self, kind: Any, waiting: list[tuple[int, Any]]) -> int:
        kind = self._names.get(kind, {"type": kind}) if isinstance(kind, str) else kind
        spec: Mapping[str, Any] = {"type": "union", "branches": kind} if isinstance(kind, list) else kind
        at, tag = len(self.rows), spec["type"]
        if tag in NAMED:
            if spec["name"] in self._placed:
                return self._placed[spec["name"]]
            self._placed[spec["name"]] = at
        self.rows.append([0, 0, 0])
        if tag in _KINDS:
            self.rows[at][0] = _KINDS[tag]
        elif tag == "enum":
            self.rows[at] = [kernel.SKIP_ENUM, 0, len(spec["symbols"])]
        elif tag == "fixed":
            self.rows[at] = [kernel.SKIP_FIXED if spec["size"] else kernel.SKIP_NOTHING, 0, spec["size"]]
        elif tag in {"array", "map"}:
            self.rows[at][0] = kernel.SKIP_ARRAY if tag == "array" else kernel.SKIP_MAP
            waiting.append((at, spec["items" if tag == "array" else "values"]))
        elif tag == "union" or spec["name"] in self._sized:
            inner = spec["branches"] if tag == "union" else [item["type"] for item in spec["fields"]]
            self.rows[at] = [
                kernel.SKIP_UNION if tag == "union" else kernel.SKIP_RECORD,
                len(self.rows),
                len(inner),
            ]
            waiting += [(len(self.rows) + i, each) for i, each in enumerate(inner)]
            self.rows += [[kernel.SKIP_EDGE, 0, 0] for _ in inner]
        else:
            self.rows[at][0] = kernel.SKIP_NOTHING
        return at


def _sized_records(names: Mapping[str, Any]) -> set[str]:
    """Return the records whose values take at least one byte."""
    records = {name: kind for name, kind in names.items() if kind["type"] == "record"}
    sized: set[str] = set()

    def takes_bytes(kind: Any) -> bool:
        spec = names.get(kind, kind) if isinstance(kind, str) else kind
        if isinstance(spec, list):
            return True
        tag = spec if isinstance(spec, str) else spec["type"]
        if tag == "record":
            return spec["name"] in sized
        return tag != "null" and not (tag == "fixed" and spec["size"] == 0)

    grown = -1
    while grown < len(sized):
        grown = len(sized)
        sized |= {name for name, kind in records.items() if any(takes_bytes(each["type"]) for each in kind["fields"])}
    return sized
