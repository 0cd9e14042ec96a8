"""`millstream ingest` and `millstream simulate` on a real broker: what was in the file is in the topic."""

import json
from pathlib import Path

import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from millstream.adapters.embedded.endpoints import Endpoints
from millstream.adapters.kafka.client import read_committed
from millstream.adapters.kafka.topics import create_topics
from millstream.cli import ingest
from millstream.core.avro.decode import RecordReader
from millstream.core.contracts import Contract
from millstream.core.partitioner import partition_of
from millstream.errors import Misconfigured
from millstream.settings import Settings
from millstream.topology import Topic
from millstream_lab.simulation import command as simulation

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

SHIPPED = Path(__file__).parents[2] / "schemas"
PARTITIONS = 3


@pytest.fixture
def cli(stack: Settings, kafka: Endpoints, tmp_path: Path) -> tuple[typer.Typer, dict[str, str]]:
    """The commands, and an environment whose contracts are the shipped ones under topic names of this test's own."""
    app = typer.Typer()
    for module in (ingest, simulation):
        module.register(app)
    schemas = tmp_path / "schemas"
    schemas.mkdir()
    names = {"transactions": f"tx-{tmp_path.name}", "labels": f"labels-{tmp_path.name}"}
    for shipped, name in names.items():
        (schemas / f"{name}.avsc").write_text((SHIPPED / f"{shipped}.avsc").read_text())
    create_topics(kafka.kafka, [Topic(name, "key", "test", ()) for name in names.values()], PARTITIONS, 1)
    return app, {"MILLSTREAM_STATE_DIR": str(stack.state_dir), "MILLSTREAM_SCHEMAS_DIR": str(schemas), "COLUMNS": "200"}


def published(kafka: Endpoints, topic: str, schemas: Path) -> tuple[pl.DataFrame, list[tuple[bytes, int]]]:
    """Return all records of a topic, decoded and in order of their event id, and each key's partition."""
    contract = Contract.parse((schemas / f"{topic}.avsc").read_text())
    values, keys = [], []
    for partition in range(PARTITIONS):
        for messages in read_committed(kafka.kafka, topic, partition, 0, None):
            values += [message.value() for message in messages]
            keys += [(message.key() or b"", partition) for message in messages]
    decoded = RecordReader(contract.schema, lambda _: None).decode(values, 10_000)
    assert not decoded.rejections
    return pl.DataFrame(dict(decoded.batch.columns)), keys


def test_a_simulated_file_is_ingested_whole(
    cli: tuple[typer.Typer, dict[str, str]], kafka: Endpoints, tmp_path: Path
) -> None:
    app, environment = cli
    small = ["--customers", "30", "--terminals", "400", "--days", "9", "--radius", "15"]
    file, topic = tmp_path / "small.parquet", f"tx-{tmp_path.name}"
    made = CliRunner().invoke(app, ["simulate", str(file), *small], env=environment)
    assert made.exit_code == 0, made.output
    done = CliRunner().invoke(app, ["ingest", str(file), "--topic", topic, "--json"], env=environment)
    assert done.exit_code == 0, done.output
    expected = pl.read_parquet(file).drop("is_fraud", "fraud_scenario")
    found, keys = published(kafka, topic, tmp_path / "schemas")
    assert found.sort("transaction_id").equals(expected)
    assert json.loads(done.stdout) == {
        "acked": len(expected),
        "bad_rows": 0,
        "reasons": {},
        "resume_from": len(expected),
    }
    assert [partition for _, partition in keys] == partition_of([key for key, _ in keys], PARTITIONS).tolist()
    for _, one in found.group_by("customer_id", maintain_order=True):
        assert one["transaction_id"].is_sorted()


def test_simulated_transactions_and_labels_go_straight_to_their_topics(
    cli: tuple[typer.Typer, dict[str, str]], kafka: Endpoints, tmp_path: Path
) -> None:
    app, environment = cli
    topic, labels_topic = f"tx-{tmp_path.name}", f"labels-{tmp_path.name}"
    small = ["--customers", "60", "--terminals", "50", "--days", "9", "--radius", "25", "--seed", "5"]
    command = ["simulate", "--topic", topic, "--labels-topic", labels_topic, *small, "--json"]
    done = CliRunner().invoke(app, command, env=environment)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    transactions, _ = published(kafka, topic, tmp_path / "schemas")
    labels, _ = published(kafka, labels_topic, tmp_path / "schemas")
    assert len(transactions) == len(labels) == told["transactions"] == told["acked"] / 2
    assert labels["label"].sum() == told["frauds"] > 0
    both = transactions.join(
        labels.with_columns(pl.col("event_id").cast(pl.Int64)), left_on="transaction_id", right_on="event_id"
    )
    assert (both["known_at_ms"] - both["event_time_ms"]).unique().to_list() == [7 * 86_400_000]


def test_bad_rows_are_named_written_down_and_make_the_exit_code_1(
    cli: tuple[typer.Typer, dict[str, str]], kafka: Endpoints, tmp_path: Path
) -> None:
    app, environment = cli
    file, report = tmp_path / "bad.csv", tmp_path / "bad.jsonl"
    file.write_text(
        "TRANSACTION_ID,TX_DATETIME,CUSTOMER_ID,TERMINAL_ID,TX_AMOUNT\n"
        "0,2018-04-01 00:00:31,596,3156,57.16\n1,2018-04-01 00:02:10,4961,3412,-81.51\n2,soon,2,1365,146.0\n"
    )
    command = ["ingest", str(file), "--topic", f"tx-{tmp_path.name}", "--rejected", str(report)]
    done = CliRunner().invoke(app, command, env=environment)
    assert done.exit_code == 1, done.output
    assert "2 bad rows" in done.output
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(row["row"], row["field"], row["value"], row["reason"]) for row in rows] == [
        (1, "amount", "-81.51", "range"),
        (2, "event_time_ms", "soon", "type"),
    ]
    found, _ = published(kafka, f"tx-{tmp_path.name}", tmp_path / "schemas")
    assert found.rows() == [(0, 596, 3156, 1_522_540_831_000, 57.16)]


def test_a_topic_that_is_not_there_is_named(cli: tuple[typer.Typer, dict[str, str]], tmp_path: Path) -> None:
    app, environment = cli
    schemas = tmp_path / "schemas"
    (schemas / "absent.avsc").write_text((SHIPPED / "transactions.avsc").read_text())
    file = tmp_path / "one.csv"
    file.write_text("transaction_id,event_time,customer_id,terminal_id,amount\n0,2018-04-01,1,2,3\n")
    done = CliRunner().invoke(app, ["ingest", str(file), "--topic", "absent"], env=environment)
    assert isinstance(done.exception, Misconfigured)
    assert "no topic absent" in str(done.exception)
