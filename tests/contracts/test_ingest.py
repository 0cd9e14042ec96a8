"""A file to a topic: every row is published or named, in order and at its time."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fakes_producer import FakeProducer
from millstream.adapters.files.ingest import BadRow, Progress, columns_for, ingest, resume_row
from millstream.adapters.files.tabular import open_table
from millstream.adapters.kafka.paced_publisher import PacedPublisher
from millstream.adapters.kafka.producer import drain
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.contracts import Contract
from millstream.core.pacing import FLAT_OUT, Pace
from millstream.errors import Misconfigured, Stop

CONTRACT = Contract.parse(
    {
        "type": "record",
        "name": "Reading",
        "millstream": {"key": "sensor", "event_id": "id", "event_time": "at_ms"},
        "fields": [
            {"name": "id", "type": "long"},
            {"name": "sensor", "type": "string", "max_length": 5},
            {"name": "at_ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "celsius", "type": "double", "minimum": -60, "maximum": 60, "aliases": ["temp"]},
            {"name": "note", "type": ["null", "string"], "default": None},
        ],
    }
)


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_s += seconds


def run(path: Path, client: FakeProducer, pace: Pace = FLAT_OUT, start: int = 0, **options: Any) -> tuple[Any, ...]:
    clock, bad, progress = Clock(), list[BadRow](), Progress(start)
    publisher = PacedPublisher(client, pace, clock_s=clock, sleep_s=clock.sleep)
    table = open_table(path)
    columns = columns_for(table, CONTRACT, {})
    ingest(
        table, columns, "readings", CONTRACT, RecordWriter(CONTRACT.schema), publisher, progress, bad.append, **options
    )
    drain(client, publisher.deliveries)
    return publisher, progress, bad, clock


def readings(client: FakeProducer) -> list[tuple[bytes | None, int, str, int, float]]:
    decoded = RecordReader(CONTRACT.schema, lambda _: None).decode([value for _, _, value, _ in client.records], 10_000)
    assert not decoded.rejections
    columns = [decoded.batch.columns[name].tolist() for name in ("id", "sensor", "at_ms", "celsius")]
    return list(zip([key for _, key, _, _ in client.records], *columns, strict=True))


def good_csv(tmp_path: Path, rows: int) -> Path:
    path = tmp_path / "good.csv"
    lines = [f"{i},s{i % 3},2018-04-01T00:00:{i:02},{i / 2}" for i in range(rows)]
    path.write_text("\n".join(["ID,Sensor,at,Temp", *lines, ""]))
    return path


def test_columns_find_their_fields_and_rows_arrive_in_order(tmp_path: Path) -> None:
    client = FakeProducer(room=7)
    _, progress, bad, _ = run(good_csv(tmp_path, 30), client)
    start_ms = 1_522_540_800_000
    assert readings(client) == [(b"s%d" % (i % 3), i, f"s{i % 3}", start_ms + i * 1000, i / 2) for i in range(30)]
    assert (progress.next_row, progress.good_rows, progress.bad_rows, bad) == (30, 30, 0, [])


def test_every_bad_row_is_named_and_the_others_are_sent(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("id,sensor,at_ms,temp\n1,a,5,20\nx,a,5,20\n2,a,5\n3,a,5,hot\n4,toolong,5,20\n5,a,5,99\n6,,5,1\n")
    client = FakeProducer()
    _, progress, bad, _ = run(path, client)
    assert [(row.row, row.field, row.value, row.reason) for row in bad] == [
        (1, "id", "x", "type"),
        (2, "", "2,a,5", "columns"),
        (3, "celsius", "hot", "type"),
        (4, "sensor", "toolong", "too-long"),
        (5, "celsius", "99", "range"),
    ]
    assert [record[1] for record in readings(client)] == [1, 6]
    assert progress.reasons == {"type": 2, "columns": 1, "too-long": 1, "range": 1}
    assert (progress.good_rows, progress.bad_rows) == (2, 5)


def test_a_row_at_fault_in_two_fields_is_one_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"id": "x", "sensor": "a", "at_ms": null, "celsius": 1}\n')
    _, progress, bad, _ = run(path, FakeProducer())
    assert [(row.field, row.reason) for row in bad] == [("id", "type"), ("at_ms", "null-value")]
    assert (progress.bad_rows, progress.reasons) == (1, {"type": 1})


def test_bad_rows_that_can_be_encoded_are_sent_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("id,sensor,at_ms,temp\n1,a,5,99\nx,a,5,20\n2,a,5,20\n")
    client = FakeProducer()
    _, progress, _, _ = run(path, client, send_bad=True)
    assert [record[1] for record in readings(client)] == [1, 2]
    assert progress.bad_rows == 2


@pytest.mark.parametrize(("pace", "took_s"), [(Pace("rate", 10.0), 2.9), (Pace("speed", 5.0), 5.8), (FLAT_OUT, 0.0)])
def test_rows_wait_until_they_are_due(tmp_path: Path, pace: Pace, took_s: float) -> None:
    client = FakeProducer()
    *_, clock = run(good_csv(tmp_path, 30), client, pace)
    assert clock.now_s - 100.0 == pytest.approx(took_s, abs=0.02)
    assert len(client.records) == 30


def test_a_part_of_the_file(tmp_path: Path) -> None:
    client = FakeProducer()
    publisher, progress, _, _ = run(good_csv(tmp_path, 30), client, start=12, limit=5)
    assert [record[1] for record in readings(client)] == [12, 13, 14, 15, 16]
    assert resume_row(publisher, progress) == 17


def test_after_a_failure_going_on_at_the_named_row_misses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    ids = np.arange(50)
    frame = pl.DataFrame({"id": ids, "sensor": ["a"] * 50, "at_ms": ids, "celsius": [0.0] * 50})
    frame.write_parquet(path)
    refused = RecordWriter(CONTRACT.schema).encode
    batch_value = refused_value(refused, 20)
    client = FakeProducer(refused=frozenset({batch_value}))
    progress, publisher = Progress(0), PacedPublisher(client)
    table = open_table(path)
    with pytest.raises(Stop, match="row 20 of readings"):
        ingest(
            table,
            columns_for(table, CONTRACT, {}),
            "readings",
            CONTRACT,
            RecordWriter(CONTRACT.schema),
            publisher,
            progress,
            lambda _: None,
        )
    assert resume_row(publisher, progress) == 20


def refused_value(encode: Any, row: int) -> bytes:
    from millstream.core.batch import Batch

    columns = {
        "id": np.array([row]),
        "sensor": np.array(["a"], dtype=object),
        "at_ms": np.array([row]),
        "celsius": np.array([0.0]),
    }
    value: bytes = encode(Batch(1, columns))[0]
    return value


def test_a_file_that_lacks_a_column_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,at_ms,temp\n1,2,3\n")
    with pytest.raises(Misconfigured, match="no column for 'sensor'; the columns are id, at_ms, temp"):
        columns_for(open_table(path), CONTRACT, {})
