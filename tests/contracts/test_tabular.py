"""One stream, three formats: what a file says is what comes out, and broken rows are named."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from millstream.adapters.files.tabular import Chunk, open_table
from millstream.errors import Misconfigured

FRAME = pl.DataFrame(
    {"id": list(range(57)), "name": [f'n{i}, "é"\n' for i in range(57)], "x": [i / 4 for i in range(57)]}
)
WRITERS: dict[str, Callable[[Path], object]] = {
    "parquet": FRAME.write_parquet,
    "csv": FRAME.write_csv,
    "tsv": lambda path: FRAME.write_csv(path, separator="\t"),
    "jsonl": FRAME.write_ndjson,
}


def gathered(chunks: list[Chunk]) -> pl.DataFrame:
    return pl.concat([chunk.frame for chunk in chunks]).cast({"id": pl.Int64, "x": pl.Float64})


@pytest.mark.parametrize("ending", WRITERS)
def test_rows_come_out_as_they_went_in(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows.{ending}"
    WRITERS[ending](path)
    table = open_table(path)
    assert table.columns == ("id", "name", "x")
    chunks = list(table.chunks(table.columns, size=10))
    assert gathered(chunks).equals(FRAME)
    assert [chunk.first_row for chunk in chunks] == [0, 10, 20, 30, 40, 50]


@pytest.mark.parametrize("ending", WRITERS)
def test_a_part_keeps_its_row_numbers(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows.{ending}"
    WRITERS[ending](path)
    chunks = list(open_table(path).chunks(["x", "id"], start=13, limit=20, size=10))
    assert gathered(chunks).equals(FRAME.select("x", "id").slice(13, 20))
    assert [(chunk.first_row, chunk.frame.height) for chunk in chunks] == [(13, 7), (20, 10), (30, 3)]


def test_broken_csv_rows_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbfid,x\n0,1\n1\n\n2,\xff\n3,4,5\n4,6\n" + b"5," + b"y" * 200_000 + b"\n6,7\n")
    (chunk,) = open_table(path).chunks(["id", "x"])
    assert [(each.row, each.reason) for each in chunk.rejections] == [
        (1, "columns"),
        (2, "encoding"),
        (3, "columns"),
        (5, "undecodable"),
    ]
    assert chunk.raw[2] == "2,\\xff"
    assert chunk.frame["id"].to_list() == ["0", "", "", "", "4", "", "6"]


def test_broken_json_lines_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [
        '{"id": 1}',
        "{",
        "[1]",
        '{"id": [1]}',
        '{"id": "\\ud800"}',
        '{"other": {}, "id": 2}',
        "",
        "nul",
        '{"id": 3}',
    ]
    path.write_text("\n".join(lines))
    (chunk,) = open_table(path).chunks(["id"])
    assert [(each.row, each.reason) for each in chunk.rejections] == [
        (1, "undecodable"),
        (2, "undecodable"),
        (3, "type"),
        (4, "encoding"),
        (6, "undecodable"),
    ]
    assert chunk.raw[1] == "{"
    assert chunk.frame["id"].to_list() == [1, None, None, None, None, 2, None, 3]


def test_a_slice_keeps_the_rejections_that_are_in_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 0}\n{\n{"id": 2}\n[]\n')
    (chunk,) = open_table(path).chunks(["id"], start=2)
    assert [(each.row, chunk.raw[each.row]) for each in chunk.rejections] == [(1, "[]")]


def test_json_numbers_of_mixed_kinds_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    values = [2**60 + 1, 0.5, "x", True, None, 2**70]
    path.write_text("\n".join(json.dumps({"v": value}) for value in values))
    (chunk,) = open_table(path).chunks(["v"])
    assert chunk.frame["v"].to_list() == [str(2**60 + 1), "0.5", "x", True, None, str(2**70)]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.csv", None, "no file"),
        ("rows.xlsx", b"", "supported endings"),
        ("rows.parquet", b"not parquet", "cannot be read as Parquet"),
        ("rows.csv", b"a,a\n1,2\n", "distinct column names"),
    ],
)
def test_what_cannot_be_opened_is_said(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Misconfigured, match=says):
        open_table(path)


def test_a_damaged_parquet_file_stops_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pl.DataFrame({"id": list(range(5000))}).write_parquet(path, compression="zstd")
    data = bytearray(path.read_bytes())
    data[4 : len(data) // 2] = bytes(len(data) // 2 - 4)
    path.write_bytes(data)
    with pytest.raises(Misconfigured, match="is damaged"):
        list(open_table(path).chunks(["id"]))
