"""JSON lines: one object a line, each number as it is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from millstream.core.avro.convert import NumberText
from millstream.core.batch import Rejection

_BOM = b"\xef\xbb\xbf"


class RepeatedName(ValueError):
    """An object has a name twice."""


def json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield each line's text and value; the value is the error where the line is no JSON. Blank lines are no rows."""
    decoder = json.JSONDecoder(object_pairs_hook=_object, parse_float=NumberText, parse_constant=NumberText)
    with path.open("rb") as file:
        for number, raw in enumerate(file):
            line = raw.removeprefix(_BOM) if number == 0 else raw
            if not line.strip():
                continue
            try:
                text = line.decode().strip()
                value = decoder.decode(text)
            except UnicodeDecodeError as error:
                text, value = line.decode(errors="backslashreplace").strip(), error
            except ValueError as error:
                value = error
            except RecursionError:
                value = ValueError("it is nested too deeply")
            yield text, value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RepeatedName(f"the name {twice!r} is there twice")
    return made


def json_problem(row: int, value: Any, columns: list[str]) -> Rejection | None:
    """Return what is wrong with a line, None if nothing is."""
    if isinstance(value, UnicodeDecodeError):
        return Rejection(row, "encoding", "", "the line is not UTF-8")
    if isinstance(value, ValueError):
        return Rejection(row, "undecodable", "", f"the line is not JSON: {value}")
    if not isinstance(value, dict):
        return Rejection(row, "undecodable", "", "the line is no JSON object")
    for name in columns:
        cell = value.get(name)
        if isinstance(cell, dict | list):
            return Rejection(row, "type", name, f"found {cell!r}, which is no single value")
        if isinstance(cell, str) and not is_text(cell):
            return Rejection(row, "encoding", name, "half a surrogate pair, which is no text")
    return None


def json_column(name: str, values: list[Any]) -> pl.Series:
    """Return cells as a column of their type, or as objects where one type does not hold them as they are written."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {int} and all(-(1 << 63) <= value < 1 << 63 for value in values if value is not None):
        return pl.Series(name, values, dtype=pl.Int64)
    if len(kinds) == 1 and kinds <= {str, bool}:
        return pl.Series(name, values, dtype=pl.String if str in kinds else pl.Boolean)
    if kinds == {NumberText} and all(value is None or repr(float(value)) == str(value) for value in values):
        return pl.Series(name, [None if value is None else float(value) for value in values], dtype=pl.Float64)
    cells = [NumberText(value) if type(value) is int else value for value in values]
    return pl.Series(name, cells, dtype=pl.Object)


def is_text(text: str) -> bool:
    """Return whether a text can be encoded: it has no half surrogate pairs, which stand for bytes that are no text."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
