"""On-demand feature views: calls the user's function in Feast's modes ``python`` and ``pandas``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from millstream.core.declaration import FeatureType

_NUMBERS: frozenset[FeatureType] = frozenset({"int64", "int32", "float64", "float32"})
_PLAIN = frozenset({str, bool, float, type(None)})


@dataclass(frozen=True, slots=True)
class Transform:
    """`millstream.core.declaration.OnDemandView.compute` of a function.

    Parameters
    ----------
    name : str
        Of the view.
    function : callable
        The team's own.
    over_pandas : bool
        It takes and returns data frames, otherwise dicts of lists.
    clear : mapping of str to str
        Short names of inputs that are clear, and their full names. Feast hands over full or short names, as its caller
        likes; a function may use either.
    types : mapping of str to str
        Declared type of each input: a null number is NaN in a data frame, also where nothing else is.
    """

    name: str
    function: Callable[[Any], Any]
    over_pandas: bool
    clear: Mapping[str, str]
    types: Mapping[str, FeatureType]

    def __call__(self, columns: dict[str, list[Any]]) -> dict[str, Any]:
        """Return what the function returns, as a dict of lists where it returns what Feast takes.

        Raises
        ------
        TypeError, ValueError
            It does not return a dict, or data frame of distinct columns; and whatever the function raises.
        """
        if not self.over_pandas:
            given = {**columns, **{short: columns[name] for short, name in self.clear.items()}}
            returned = self.function(given)
            if not isinstance(returned, dict):
                raise TypeError(f"its function returned {type(returned).__name__}, mode='python' takes a dict of lists")
            return returned
        groups = _alike(list(columns.values()))
        if len(groups) == 1:
            return self._on_frame(columns, len(groups[0]))
        merged: dict[str, list[Any]] = {}
        length = sum(map(len, groups))
        for rows in groups:
            part = {name: [values[row] for row in rows] for name, values in columns.items()}
            for name, found in self._on_frame(part, len(rows)).items():
                for row, value in zip(rows, found, strict=True):
                    merged.setdefault(name, [None] * length)[row] = value
        return merged

    def _on_frame(self, columns: dict[str, list[Any]], length: int) -> dict[str, list[Any]]:
        import pandas as pd

        series = {name: _series(values, self.types[name]) for name, values in columns.items()}
        series |= {short: series[name].copy() for short, name in self.clear.items()}
        returned = self.function(pd.DataFrame(series))
        if not isinstance(returned, pd.DataFrame):
            raise TypeError(f"its function returned {type(returned).__name__}, mode='pandas' takes a DataFrame")
        if not returned.columns.is_unique:
            raise ValueError(f"its function returned columns of the same name: {', '.join(map(str, returned.columns))}")
        if len(returned) != length:
            raise ValueError(f"its function returned {len(returned)} rows for {length}")
        found = {str(name): _values(returned[name]) for name in returned.columns}
        # Feast gives either name to the caller, as it asks.
        return {name.removeprefix(f"{self.name}__"): values for name, values in found.items()} | found


def _alike(columns: Sequence[list[Any]]) -> list[list[int]]:
    """Return the rows in groups that a data frame shows alike whatever else is in it.

    pandas keeps whole numbers and truth values as such only where none is null, so rows with a null in such a column
    are kept apart from rows without: no row's dtypes follow from its neighbours.
    """
    length = len(columns[0]) if columns else 0
    patterns = []
    for values in columns:
        kinds = set(map(type, values))
        if type(None) in kinds and kinds & {int, bool}:
            patterns.append([value is None for value in values])
    groups: dict[tuple[bool, ...], list[int]] = {}
    if not patterns:
        return [list(range(length))]
    for row, pattern in enumerate(zip(*patterns, strict=True)):
        groups.setdefault(pattern, []).append(row)
    return list(groups.values())


def _series(values: list[Any], dtype: FeatureType) -> Any:
    """Return a column as Feast gives it: as Arrow does for values of its type, which a column of nulls has as well."""
    import pandas as pd

    kinds = set(map(type, values))
    if dtype in _NUMBERS:
        return pd.Series(values, dtype="int64" if kinds == {int} else "float64")
    if dtype == "unix_timestamp":
        return pd.Series(values, dtype="datetime64[us, UTC]")
    return pd.Series(values, dtype="bool" if kinds == {bool} else "object")


def _values(series: Any) -> list[Any]:
    """Return a returned column's values as Feast sees them, which passes them through Arrow, value by value."""
    import numpy as np
    import pandas as pd

    if isinstance(series.dtype, pd.DatetimeTZDtype):
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    if isinstance(series.dtype, np.dtype) and series.dtype != np.dtype(object):
        column = series.to_numpy()
        return cast("list[Any]", column.tolist() if column.dtype in {np.int64, np.float64, np.bool_} else list(column))
    values = [None if value is pd.NA else value for value in series.tolist()]
    if set(map(type, values)) <= _PLAIN:
        return values
    import pyarrow as pa

    return [value if type(value) in _PLAIN else _through(pa.array, value) for value in values]


def _through(array: Callable[..., Any], value: Any) -> Any:
    return array([value], from_pandas=True).to_numpy(zero_copy_only=False)[0]
