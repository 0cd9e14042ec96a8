"""The same table as CSV, JSON lines and Parquet gives the same rows or the same refusals, however it is cut."""

from __future__ import annotations

import csv
import json
import tempfile
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from millstream.adapters.files.tabular import open_table
from millstream.core.avro.convert import to_batch
from millstream.core.avro.schema import Field

MILLIS = Field("t_ms", "long", nullable=True, default=None, logical_type="timestamp-millis")
FIELDS = {
    "long": Field("v", "long", nullable=True, default=None),
    "int": Field("v", "int", nullable=True, default=None),
    "double": Field("v", "double", nullable=True, default=None),
    "float": Field("v", "float", nullable=True, default=None),
    "boolean": Field("v", "boolean", nullable=True, default=None),
    "string": Field("v", "string", nullable=True, default=None),
    "millis": Field("v", "long", nullable=True, default=None, logical_type="timestamp-millis"),
    "micros": Field("v", "long", nullable=True, default=None, logical_type="timestamp-micros"),
    "date": Field("v", "int", nullable=True, default=None, logical_type="date"),
}
EDGES = [0, 1, -1, 2**31, 2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 1541030400, 20181101]
EDGES += [1541030400000, 1541030400000000, 201811010000]
INTS = st.sampled_from(EDGES) | st.integers(-(2**63), 2**63 - 1)
WORDS = st.sampled_from(["", "true", "False", "7", " 7", "007", "7.0", "7e2", "1e400", "2018-11-01", "x"])
LETTERS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n", exclude_categories=["Cc"]), max_size=5)
COLUMNS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "int64": (pl.Int64, INTS),
    "uint64": (pl.UInt64, st.sampled_from([0, 5, 2**53 + 1, 2**63, 2**64 - 1])),
    "float64": (pl.Float64, INTS.map(float) | st.floats() | st.sampled_from([1541030400.5, 1.5, 9000004.0])),
    "bool": (pl.Boolean, st.booleans()),
    "text": (pl.String, WORDS | LETTERS),
    "datetime": (pl.Datetime("us"), st.datetimes(datetime(1900, 1, 1), datetime(2262, 1, 1))),  # noqa: DTZ001
    "date": (pl.Date, st.dates(date(1900, 1, 1), date(2262, 1, 1))),
    "decimal": (pl.Decimal(38, 0), (INTS | st.integers(-(10**37), 10**37)).map(Decimal)),
    "cents": (pl.Decimal(20, 2), st.integers(-(2**53), 2**53 - 1).map(lambda each: Decimal(each) / 100)),
}
NAMES = ["v", "v_s", "v_us"]


def text_of(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Decimal):
        return f"{value:f}"
    return value.isoformat() if isinstance(value, date) else repr(value) if isinstance(value, float) else str(value)


def token_of(value: Any) -> str:
    """Return a value as JSON writes it."""
    if isinstance(value, Decimal):
        return text_of(value)
    return json.dumps(value.isoformat() if isinstance(value, date) else value, ensure_ascii=False)


def write(folder: Path, name: str, dtype: Any, values: list[Any]) -> list[Path]:
    frame = pl.DataFrame({"row": range(len(values)), name: pl.Series(values, dtype=dtype)})
    frame.write_parquet(folder / "t.parquet")
    with (folder / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["row", name], *([row, text_of(value)] for row, value in enumerate(values))])
    lines = [f'{{"row": {row}, {json.dumps(name)}: {token_of(value)}}}' for row, value in enumerate(values)]
    (folder / "t.jsonl").write_text("\n".join(lines) or "\n", encoding="utf-8")
    return [folder / "t.parquet", folder / "t.csv", folder / "t.jsonl"]


def read(path: Path, name: str, field: Field, size: int) -> list[str]:
    """Return each row's value or the reason of its refusal."""
    outcomes = []
    for chunk in open_table(path).chunks([name], size=size):
        batch, rejections = to_batch([field], {"v": name}, chunk.frame)
        refused = {each.row: each.reason for each in [*rejections, *chunk.rejections]}
        null, values = batch.is_null("v"), batch.columns["v"].tolist()
        outcomes += [refused.get(row) or ("null" if null[row] else repr(values[row])) for row in range(batch.length)]
    return outcomes


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, str, str, list[Any]]:
    kind, field = draw(st.sampled_from(list(COLUMNS))), draw(st.sampled_from(list(FIELDS)))
    values = draw(st.lists(st.none() | COLUMNS[kind][1], min_size=1, max_size=6))
    return kind, field, draw(st.sampled_from(NAMES)), values


@settings(max_examples=120, deadline=None)
@given(tables())
@example(("int64", "string", "v", [2**53 + 1, None, 5]))
@example(("float64", "long", "v", [9000004.0, 9007199254740993.0, 0.5]))
@example(("float64", "millis", "v_s", [1541030400.5, 1541030400.123, 1e300]))
@example(("decimal", "long", "v", [Decimal(2**53 + 1), Decimal(10**30)]))
@example(("text", "millis", "v", ["2018-11-01", "1541030400", "20181101", "1541030400000"]))
def test_formats_and_chunks_agree(table: tuple[str, str, str, list[Any]]) -> None:
    kind, field, name, values = table
    dtype = COLUMNS[kind][0]
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), name, dtype, values)
        found = {
            (path.suffix, size): read(path, name, FIELDS[field], size) for path in paths for size in (1, 2, 20_000)
        }
        alone = [read(write(Path(folder), name, dtype, [value])[2], name, FIELDS[field], 1)[0] for value in values]
    # A CSV holds texts only: what another format refuses in a text field, since it is none, is a text there.
    is_text = field == "string" and kind not in {"int64", "uint64", "text", "decimal"}
    wanted = found[".jsonl", 20_000]
    assert alone == wanted
    for (suffix, size), outcomes in found.items():
        reference = found[".csv", 20_000] if is_text and suffix == ".csv" else wanted
        if is_text and suffix == ".parquet":
            reference = found[".parquet", 20_000]
        assert outcomes == reference, (suffix, size)


@pytest.mark.parametrize("position", [0, 2, 4])
def test_a_row_of_json_lines_is_read_alike_wherever_the_chunk_ends(tmp_path: Path, position: int) -> None:
    tokens = ["9000001", "9000002", "9000003", "9000004", "9000005"]
    tokens[position] = "9000006.0"
    path = tmp_path / "ids.jsonl"
    path.write_text("".join(f'{{"v": {token}}}\n' for token in tokens))
    wanted = [repr(str(int(float(token)))) for token in tokens]
    for size in (1, 2, 3, 5):
        assert read(path, "v", Field("v", "string"), size) == wanted
    flags = tmp_path / "flags.jsonl"
    flags.write_text("".join(f'{{"v": {token}}}\n' for token in ("true", "1", "0", "1.0", "0.5")))
    for size in (1, 2, 5):
        assert read(flags, "v", Field("v", "boolean"), size) == ["True", "True", "False", "True", "type"]
