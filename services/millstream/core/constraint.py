"""Constraints of a contract's fields, checked on whole columns."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from millstream.core.avro.schema import Field, SchemaError
from millstream.core.batch import Array, Batch, Mask, Rejection

Number: TypeAlias = int | float

_NUMERIC: Final = frozenset({"int", "long", "float", "double"})
_TEXT: Final = frozenset({"string", "bytes", "fixed"})
_APPLIES: Final[Mapping[str, frozenset[str]]] = {
    "minimum": _NUMERIC,
    "maximum": _NUMERIC,
    "exclusive_minimum": _NUMERIC,
    "exclusive_maximum": _NUMERIC,
    "allowed": _NUMERIC | _TEXT | {"enum"},
    "pattern": frozenset({"string"}),
    "max_length": _TEXT,
    "not_older_than_ms": frozenset({"long"}),
    "not_after_ms": frozenset({"long"}),
    "allow_non_finite": frozenset({"float", "double"}),
}
_DESCRIBES: Final = frozenset({"doc", "unit", "pii", "order"})


@dataclass(frozen=True, slots=True)
class Constraint:
    """Constraints of one field; None is no constraint.

    Parameters
    ----------
    field : str
        Field name.
    private : bool
        Tagged as personal data: values stay out of the sentences of rejections.
    minimum, maximum, exclusive_minimum, exclusive_maximum : number or None
        Bounds of a number.
    allowed : tuple or None
        The only values there may be.
    pattern : str or None
        Regular expression that the whole text must match.
    max_length : int or None
        In characters of a string, in bytes of bytes.
    not_older_than_ms, not_after_ms : int or None
        How far a time may lie before and after the record's own Kafka timestamp.
    finite : bool
        Refuse NaN and infinities.
    """

    field: str
    private: bool = False
    minimum: Number | None = None
    maximum: Number | None = None
    exclusive_minimum: Number | None = None
    exclusive_maximum: Number | None = None
    allowed: tuple[Any, ...] | None = None
    pattern: str | None = None
    max_length: int | None = None
    not_older_than_ms: int | None = None
    not_after_ms: int | None = None
    finite: bool = False

    @staticmethod
    def of(record: str, item: Field) -> Constraint:
        """Read the constraints off a field's attributes.

        Raises
        ------
        SchemaError
            If a constraint is misspelt, of the wrong type, or does not apply to the field's type.
        """
        where = f"{record}: field {item.name!r}"
        given: dict[str, Any] = {}
        for name, value in item.attributes.items():
            if name in _APPLIES:
                if item.kind not in _APPLIES[name]:
                    raise SchemaError(f"{where}: {name} does not apply to {item.kind}")
                if name.endswith("_ms") and item.logical_type != "timestamp-millis":
                    raise SchemaError(f"{where}: {name} needs logicalType timestamp-millis")
                given[name] = _checked(where, name, value)
            elif name not in _DESCRIBES:
                near = difflib.get_close_matches(name, [*_APPLIES, *_DESCRIBES], n=1, cutoff=0.75)
                if near:
                    raise SchemaError(f"{where}: unknown attribute {name!r}; did you mean {near[0]!r}?")
        finite = item.kind in {"float", "double"} and not given.pop("allow_non_finite", False)
        private = item.attributes.get("pii", "none") != "none"
        return Constraint(item.name, private=private, finite=finite, **given)

    @property
    def texts(self) -> dict[str, str]:
        """Return each constraint that is set, as text for people."""
        names = [name for name in _APPLIES if name != "allow_non_finite" and getattr(self, name) is not None]
        return {name: str(getattr(self, name)) for name in names} | ({"finite": "true"} if self.finite else {})

    def violations(self, batch: Batch, received_ms: NDArray[np.int64]) -> Iterator[tuple[Mask, str, str]]:
        """Yield (rows that break it, reason, what is allowed) for each constraint; nulls break none.

        Parameters
        ----------
        batch : Batch of length n
            Holds the field.
        received_ms : int64 ndarray of shape (n,)
            The records' Kafka timestamps; where negative there is none, and times are not judged.
        """
        column = batch.columns[self.field]
        mask = batch.nulls.get(self.field)
        for broken, reason, allowed in self._raw(column, received_ms):
            yield (broken if mask is None else broken & ~mask), reason, allowed

    def rejections(self, batch: Batch, received_ms: NDArray[np.int64], sound: Mask) -> Iterator[Rejection]:
        """Yield a rejection for each sound row that breaks a constraint, and clear its place in ``sound``."""
        for broken, reason, allowed in self.violations(batch, received_ms):
            if not broken.any():
                continue
            for row in np.flatnonzero(broken & sound).tolist():
                found = "a value" if self.private else shown(batch.columns[self.field][row])
                yield Rejection(row, reason, self.field, f"{self.field} is {found}; allowed: {allowed}")
            sound &= ~broken

    def _raw(self, column: Array, received_ms: NDArray[np.int64]) -> Iterator[tuple[Mask, str, str]]:
        if self.finite:
            yield ~np.isfinite(column), "not-finite", "a finite number"
        if self.minimum is not None:
            yield column < self.minimum, "range", f"at least {self.minimum}"
        if self.exclusive_minimum is not None:
            yield column <= self.exclusive_minimum, "range", f"more than {self.exclusive_minimum}"
        if self.maximum is not None:
            yield column > self.maximum, "range", f"at most {self.maximum}"
        if self.exclusive_maximum is not None:
            yield column >= self.exclusive_maximum, "range", f"less than {self.exclusive_maximum}"
        if self.max_length is not None:
            lengths = np.fromiter(map(len, column.tolist()), dtype=np.int64, count=len(column))
            yield lengths > self.max_length, "too-long", f"at most {self.max_length}"
        if self.allowed is not None:
            yield ~_each(column, frozenset(self.allowed).__contains__), "not-allowed", f"one of {list(self.allowed)}"
        if self.pattern is not None:
            match = re.compile(self.pattern).fullmatch
            yield ~_each(column, lambda cell: match(cell) is not None), "pattern", f"text like {self.pattern}"
        if self.not_older_than_ms is not None:
            old = (received_ms >= 0) & (column < received_ms - self.not_older_than_ms)
            yield old, "too-old", f"at most {self.not_older_than_ms} ms before the record's own timestamp"
        if self.not_after_ms is not None:
            early = (received_ms >= 0) & (column > received_ms + self.not_after_ms)
            yield early, "from-the-future", f"at most {self.not_after_ms} ms after the record's own timestamp"


def shown(value: object) -> str:
    """Return a value as a rejection shows it, cut to 60 characters."""
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _each(column: Array, test: Any) -> Mask:
    return np.fromiter(map(test, column.tolist()), dtype=np.bool_, count=len(column))


def _checked(where: str, name: str, value: Any) -> Any:
    """Return the attribute's value as the constraint holds it, or refuse it."""
    if name == "allow_non_finite" and isinstance(value, bool):
        return value
    if name == "allowed" and isinstance(value, list) and value:
        return tuple(value)
    if name == "pattern" and isinstance(value, str):
        try:
            re.compile(value)
        except re.error as error:
            raise SchemaError(f"{where}: pattern {value!r} is no regular expression: {error}") from error
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    whole = name == "max_length" or name.endswith("_ms")
    if number and (not whole or (isinstance(value, int) and value >= 0)) and name not in {"pattern", "allowed"}:
        return value
    raise SchemaError(f"{where}: {name} cannot be {value!r}")
