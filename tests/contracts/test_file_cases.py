"""Files that were read wrong, or that other tools are known to read wrong: what is published, and what is refused."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from fakes_producer import FakeProducer
from millstream.adapters.files.contracts import load_contract
from millstream.adapters.files.csv_rows import Dialect
from millstream.adapters.files.ingest import BadRow, Progress, columns_for, ingest
from millstream.adapters.files.tabular import Declared, open_table
from millstream.adapters.kafka.paced_publisher import PacedPublisher
from millstream.adapters.kafka.producer import drain
from millstream.app.publish_warnings import first_event_ms, unit_warning
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.reading import Reading
from millstream.core.avro.schema import Field
from millstream.core.contracts import Contract
from millstream.core.label_rows import LabelShape
from millstream.errors import Misconfigured
from millstream.settings import load_settings

SCHEMAS = Path(__file__).parents[2] / "schemas"
EVENTS = Contract.parse((SCHEMAS / "transactions.avsc").read_text())
LABELS = Contract.parse((SCHEMAS / "labels.avsc").read_text())
HEADER = "transaction_id,customer_id,terminal_id,event_time_ms,amount,note\n"
ROWS = [f"{row},7,3,{1541030400000 + 60_000 * (row - 1)},{row}0.0,ok\n" for row in range(1, 7)]
INCH = ROWS[1].replace("ok", '"12 in cable')
NOV_1_MS, NOV_2_MS, DEC_1_MS = 1541030400000, 1541116800000, 1543622400000


def published(
    path: Path, contract: Contract = EVENTS, declared: Declared | None = None, shape: LabelShape | None = None
) -> tuple[pl.DataFrame, list[BadRow]]:
    """Return what `millstream ingest` would publish of a file, and the rows at fault."""
    client, bad = FakeProducer(), list[BadRow]()
    publisher = PacedPublisher(client)
    table = open_table(path, declared or Declared())
    columns = columns_for(table, contract, {}, shape)
    writer = RecordWriter(contract.schema)
    ingest(table, columns, "topic", contract, writer, publisher, Progress(0), bad.append, shape=shape)
    drain(client, publisher.deliveries)
    decoded = RecordReader(contract.schema, lambda _: None).decode([each[2] for each in client.records], 10_000)
    assert not decoded.rejections
    return pl.DataFrame(dict(decoded.batch.columns)), bad


def csv_of(tmp_path: Path, *lines: str, name: str = "rows.csv") -> Path:
    path = tmp_path / name
    path.write_text("".join(lines), newline="")
    return path


def test_an_unclosed_quote_costs_its_own_row(tmp_path: Path) -> None:
    path = csv_of(tmp_path, HEADER, ROWS[0], INCH, *ROWS[2:5])
    rows, bad = published(path)
    assert rows["transaction_id"].to_list() == [1, 3, 4, 5]
    assert [(each.row, each.reason) for each in bad] == [(1, "unclosed-quote")]
    assert "opens a cell in line 3 is not closed (read up to line 6)" in bad[0].detail
    as_text, none_bad = published(path, declared=Declared(Dialect(quote=None)))
    assert (as_text["transaction_id"].to_list(), none_bad) == ([1, 2, 3, 4, 5], [])


def test_a_quote_that_closes_lines_later_costs_its_own_row(tmp_path: Path) -> None:
    path = csv_of(tmp_path, HEADER, ROWS[0], INCH, *ROWS[2:4], ROWS[4].replace("ok", '9" pan'), ROWS[5])
    rows, bad = published(path)
    assert rows["transaction_id"].to_list() == [1, 3, 4, 5, 6]
    assert [(each.row, each.reason) for each in bad] == [(1, "unclosed-quote")]
    assert "in line 3" in bad[0].detail
    assert "in line 6" in bad[0].detail


def test_a_quote_that_closes_validly_over_whole_rows_is_refused_with_their_lines(tmp_path: Path) -> None:
    path = csv_of(tmp_path, HEADER, ROWS[0], INCH, *ROWS[2:4], ROWS[4].replace("ok", '9"'), ROWS[5])
    rows, bad = published(path)
    assert rows["transaction_id"].to_list() == [1, 6]
    assert [(each.row, each.reason) for each in bad] == [(1, "unclosed-quote")]
    assert "from line 3 to line 6" in bad[0].detail


def test_cells_over_several_lines_are_read_where_they_hold_no_rows(tmp_path: Path) -> None:
    note = '"Dear all,\r\nthanks, bye, all, of, you, now\n""quoted"""\n'
    rows, bad = published(csv_of(tmp_path, HEADER, ROWS[0].replace("ok\n", note), ROWS[1]))
    assert (rows["transaction_id"].to_list(), bad) == ([1, 2], [])


@pytest.mark.parametrize(
    ("name", "times", "wanted", "refused"),
    [
        ("event_time", ["1541030400", "1541116800"], [], [0, 1]),
        ("event_time", ["20181101", "20181102"], [], [0, 1]),
        ("event_time", ["2018-11-01T00:00:00Z", "1541116800", "2018-12-01"], [NOV_1_MS, DEC_1_MS], [1]),
        ("event_time", ["1541030400000", "1541030400000000", "0", "201811010000"], [NOV_1_MS], [1, 2, 3]),
        ("event_time_s", ["1541030400", "1541116800.0"], [NOV_1_MS, NOV_2_MS], []),
        ("EVENT_TIME_US", ["1541030400000000", "1541030400000001"], [NOV_1_MS], [1]),
        ("event_time_ns", ["1541030400000000000"], [NOV_1_MS], []),
        ("event_time_ms", ["0", "2018-11-01 01:00:00+01:00", "2018-11-01T00:00:00.0001Z"], [0, NOV_1_MS], [2]),
    ],
)
def test_times_are_read_by_their_unit_or_refused(
    tmp_path: Path, name: str, times: list[str], wanted: list[int], refused: list[int]
) -> None:
    lines = [f"{row},7,3,{time},10.0\n" for row, time in enumerate(times)]
    path = csv_of(tmp_path, f"transaction_id,customer_id,terminal_id,{name},amount\n", *lines)
    rows, bad = published(path)
    assert rows["event_time_ms"].to_list() == wanted
    assert [each.row for each in bad] == refused


@pytest.mark.parametrize(
    ("reading", "time", "wanted"),
    [
        (Reading(time_unit="s"), "1541030400", NOV_1_MS),
        (Reading(time_unit="yyyymmdd"), "20181101", NOV_1_MS),
        (Reading(time_unit="yyyymmdd"), "20181131", None),
        (Reading(column_units={"event_time": "us"}), "1541030400000000", NOV_1_MS),
        (Reading(time_zone="Europe/Berlin"), "2018-11-01T01:00:00", NOV_1_MS),
        (Reading(time_zone="Europe/Berlin"), "2018-11-01T00:00:00Z", NOV_1_MS),
        (Reading(time_zone="Europe/Berlin"), "2018-10-28T02:30:00", None),
        (Reading(time_zone="Europe/Berlin"), "2018-03-25T02:30:00", None),
        (Reading(truncate_times=True), "2018-11-01T00:00:00.000999Z", NOV_1_MS),
    ],
)
def test_what_is_declared_about_times_holds(tmp_path: Path, reading: Reading, time: str, wanted: int | None) -> None:
    path = csv_of(tmp_path, "transaction_id,customer_id,terminal_id,event_time,amount\n", f"1,7,3,{time},10.0\n")
    rows, bad = published(path, declared=Declared(reading=reading))
    assert rows["event_time_ms"].to_list() == ([] if wanted is None else [wanted])
    assert len(bad) == (wanted is None)


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_parquet_times_are_read_in_their_own_unit_and_zone(tmp_path: Path, unit: str, zone: str | None) -> None:
    naive = pl.Series([datetime(2018, 11, 1)]).cast(pl.Datetime(unit))  # type: ignore[arg-type] # noqa: DTZ001
    times = naive if zone is None else naive.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    path = tmp_path / "rows.parquet"
    ids = {name: [7] for name in ("transaction_id", "customer_id", "terminal_id")}
    pl.DataFrame({**ids, "event_time": times, "amount": [1.0]}).write_parquet(path)
    rows, bad = published(path)
    assert (rows["event_time_ms"].to_list(), bad) == ([NOV_1_MS], [])


@pytest.mark.parametrize(("time", "warned"), [("1541030400", True), ("1541030400000", False), ("0", False)])
def test_seconds_in_a_column_named_milliseconds_are_warned_of(tmp_path: Path, time: str, warned: bool) -> None:
    path = csv_of(tmp_path, "transaction_id,customer_id,terminal_id,event_time_ms,amount\n", f"1,7,3,{time},10.0\n")
    table = open_table(path)
    found = unit_warning("event_time_ms", first_event_ms(table, columns_for(table, EVENTS, {}), EVENTS, 0))
    assert (found is not None) == warned
    assert not warned or "--time-unit event_time_ms=s" in str(found)


def test_labels_are_ingested_with_the_shipped_contract_where_a_folder_has_none(tmp_path: Path) -> None:
    (tmp_path / "orders.avsc").write_text((SCHEMAS / "transactions.avsc").read_text())
    settings = load_settings({}, schemas_dir=tmp_path)
    assert load_contract(settings, "labels").schema == LABELS.schema


def test_decimals_of_a_warehouse_are_whole_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    whole = pl.Decimal(38, 0)
    columns = {
        "TRANSACTION_ID": pl.Series([Decimal(9007199254740993), Decimal(2), Decimal(10**30)], dtype=whole),
        "CUSTOMER_ID": pl.Series([Decimal(7)] * 3, dtype=whole),
        "TERMINAL_ID": pl.Series([Decimal("3.00"), Decimal("3.50"), Decimal(3)], dtype=pl.Decimal(38, 2)),
        "EVENT_TIME_MS": pl.Series([Decimal(NOV_1_MS)] * 3, dtype=whole),
        "AMOUNT": pl.Series([Decimal("10.50"), Decimal("20.25"), Decimal("1.00")], dtype=pl.Decimal(12, 2)),
    }
    pl.DataFrame(columns).write_parquet(path)
    rows, bad = published(path)
    assert rows.row(0) == (9007199254740993, 7, 3, NOV_1_MS, 10.5)
    assert rows.height == 1
    assert [(each.row, each.field) for each in bad] == [(1, "terminal_id"), (2, "transaction_id")]
    assert "it has a fraction" in bad[0].detail
    assert "does not fit 64 bits" in bad[1].detail


@pytest.mark.parametrize("whole", [True, False])
def test_ids_of_labels_are_read_as_the_events_have_them(tmp_path: Path, whole: bool) -> None:
    ids = ["9000001", "9000002.0", "09000003", " 9000004", "9.000005e6", "9007199254740993"]
    lines = [f"{each},1,1541635200000,chargeback,new\n" for each in ids]
    path = csv_of(tmp_path, "event_id,label,known_at_ms,source,kind\n", *lines)
    shape = LabelShape.of(LABELS.schema.fields, Field("transaction_id", "long" if whole else "string"))
    rows, bad = published(path, LABELS, shape=shape)
    if whole:
        assert rows["event_id"].to_list() == ["9000001", "9000002", "9000003", "9000004", "9007199254740993"]
        assert [(each.row, each.field) for each in bad] == [(4, "event_id")]
    else:
        assert (rows["event_id"].to_list(), bad) == (ids, [])


def test_a_label_is_0_or_1_of_any_type(tmp_path: Path) -> None:
    shape = LabelShape.of(LABELS.schema.fields, Field("transaction_id", "long"))
    path = tmp_path / "labels.jsonl"
    cells = ["true", "false", "1", "0.0", '"True"', "37", "0.5", "null"]
    line = '{{"event_id": {}, "label": {}, "known_at_ms": 1541635200000, "source": "", "kind": "new"}}\n'
    path.write_text("".join(line.format(row, cell) for row, cell in enumerate(cells)))
    rows, bad = published(path, LABELS, shape=shape)
    assert rows["label"].to_list()[:5] == [1.0, 0.0, 1.0, 0.0, 1.0]
    assert [each.row for each in bad] == [5, 6]
    assert "found 37, which is no binary label; allowed: 0, 1, true and false" in bad[0].detail
    frame = pl.DataFrame({"event_id": ["1", "2"], "label": [True, False], "known_at_ms": [NOV_1_MS] * 2})
    frame.write_parquet(tmp_path / "labels.parquet")
    rows, bad = published(tmp_path / "labels.parquet", LABELS, shape=shape)
    assert (rows["label"].to_list(), bad) == ([1.0, 0.0], [])


@pytest.mark.parametrize(
    ("head", "row", "declared"),
    [
        ("transaction_id;customer_id;terminal_id;event_time_ms;amount", "1;7;3;1541030400000;10.5", Declared()),
        ("transaction_id\tcustomer_id\tterminal_id\tevent_time_ms\tamount", "1\t7\t3\t1541030400000\t10.5", Declared()),
        ("sep=|\ntransaction_id|customer_id|terminal_id|event_time_ms|amount", "1|7|3|1541030400000|10.5", Declared()),
        (
            "transaction_id;customer_id;terminal_id;event_time_ms;amount",
            "1;7;3;1541030400000;10,5",
            Declared(reading=Reading(decimal_comma=True)),
        ),
        (
            "transaction_id:customer_id:terminal_id:event_time_ms:amount",
            "1:7:3:1541030400000:'10.5'",
            Declared(Dialect(separator=":", quote="'")),
        ),
    ],
)
def test_a_dialect_is_found_or_declared(tmp_path: Path, head: str, row: str, declared: Declared) -> None:
    rows, bad = published(csv_of(tmp_path, f"{head}\n{row}\n"), declared=declared)
    assert (rows.rows(), bad) == ([(1, 7, 3, NOV_1_MS, 10.5)], [])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"", "the file is empty"),
        ("a.csv", "id,x\n1,2\n".encode("utf-16"), "declare it with --encoding utf-16"),
        ("a.csv", b"id,\xfc\n1,2\n", "its header is not UTF-8"),
        ("a.csv", b"id;a|b\n1;2\n", "declare it with --separator"),
        ("a.csv", b'"id,x\n1,2\n', "header cannot be read: a quote that opens a cell in line 1 is not closed"),
        ("a.json", b'[{"id": 1}]', "is a JSON array"),
        ("a.jsonl", b"1\n2\n", "no line that is a JSON object"),
        ("a.csv.gz", b"", "supported endings"),
    ],
)
def test_a_file_whose_form_is_unclear_is_refused_in_one_sentence(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(Misconfigured, match=says):
        open_table(path)


def test_other_encodings_are_read_as_declared(tmp_path: Path) -> None:
    for encoding in ("latin-1", "utf-16"):
        path = tmp_path / "rows.csv"
        path.write_bytes("id,name\n1,Müller\n".encode(encoding))
        (chunk,) = open_table(path, Declared(Dialect(encoding=encoding))).chunks(["name"])
        assert chunk.frame["name"].to_list() == ["Müller"]
    (tmp_path / "nul.csv").write_bytes(b"id,name\n1,a\0b\n2,c\n")
    (chunk,) = open_table(tmp_path / "nul.csv").chunks(["id"])
    assert [(each.row, each.reason) for each in chunk.rejections] == [(0, "encoding")]


def test_a_name_that_only_a_late_line_has_is_a_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1}\n' * 1500 + '{"id": 2, "note": "late"}\n{"id": 3, "id": 4}\n')
    table = open_table(path)
    assert (table.columns, table.rows_at_most) == (("id", "note"), 1502)
    chunk = list(table.chunks(["id", "note"], size=1000))[-1]
    assert chunk.frame["note"].to_list()[-2:] == ["late", None]
    assert [(each.row, each.detail) for each in chunk.rejections] == [
        (501, "the line is not JSON: the name 'id' is there twice")
    ]
