"""`millstream dead-letters` on a real broker: what is shown is what failed, and each goes back exactly once."""

import base64
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import typer
from confluent_kafka import Producer
from typer.testing import CliRunner

from millstream.adapters.embedded.endpoints import Endpoints
from millstream.adapters.files.contracts import load_all
from millstream.adapters.kafka.client import read_committed
from millstream.adapters.kafka.dead_letters import DeadLetter, Selection, read_dead_letters
from millstream.adapters.kafka.redrive import REDRIVEN, RedriveResult, redrive, transactional_id
from millstream.adapters.kafka.topics import create_topics
from millstream.cli import dead_letters
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.errors import Fenced, Misconfigured
from millstream.settings import Settings, load_settings
from millstream.topology import DEAD_LETTERS, Topic
from running import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

CONTRACTS = load_all(load_settings({}))
TRANSACTION = RecordWriter(CONTRACTS["transactions"].schema).encode(
    Batch(
        1,
        {
            "transaction_id": np.array([7]),
            "customer_id": np.array([596]),
            "terminal_id": np.array([3156]),
            "event_time_ms": np.array([1_522_540_831_000]),
            "amount": np.array([-1.5]),
        },
    )
)[0]


@dataclass(frozen=True)
class Desk:
    """A topic of this test's own, with dead letters of it in the shared dead-letter topic."""

    kafka: dict[str, str]
    environment: dict[str, str]
    topic: str
    letters: list[DeadLetter]

    def run(self, *arguments: str, code: int = 0) -> str:
        app = typer.Typer()
        dead_letters.register(app)
        done = CliRunner().invoke(app, ["dead-letters", *arguments], env=self.environment)
        if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code, done.output
        return done.stdout

    def came_back(self, least: int = 0) -> list[tuple[bytes | None, bytes | None]]:
        """Return what is committed, once it is that many: Kafka shows it to readers shortly after the commit."""
        found: list[Any] = []

        def shown() -> bool:
            found[:] = [m for messages in read_committed(self.kafka, self.topic, 0, 0, None) for m in messages]
            return len(found) >= least

        wait_until(shown, 30)
        return [(message.key(), message.value()) for message in found]


def write_letters(kafka: dict[str, str], letters: list[DeadLetter]) -> None:
    def column(name: str, numbers: bool) -> Any:
        values = np.empty(len(letters), dtype=np.int64 if numbers else object)
        values[:] = [getattr(each, name) if getattr(each, name) is not None else b"" for each in letters]
        return values

    numeric = {"partition", "offset", "received_at_ms", "failed_at_ms"}
    columns = {name: column(name, name in numeric) for name in DeadLetter.__slots__}
    nulls = {name: np.array([getattr(each, name) is None for each in letters]) for name in ("key", "value")}
    producer = Producer(kafka)
    records = RecordWriter(CONTRACTS[DEAD_LETTERS].schema).encode(Batch(len(letters), columns, nulls))
    for letter, record in zip(letters, records, strict=True):
        producer.produce(DEAD_LETTERS, record, letter.id.encode())
    assert producer.flush(30) == 0
    producer.close()


@pytest.fixture
def desk(stack: Settings, kafka: Endpoints) -> Desk:
    topic = f"letters-{uuid.uuid4().hex[:8]}"
    create_topics(kafka.kafka, [Topic(topic, "k", "t", (), "delete", 1)], 1, 1)
    create_topics(kafka.kafka, [Topic(DEAD_LETTERS, "id", "t", (), "delete", 1)], 1, 1)
    first = DeadLetter(
        f"{topic}-0-10", topic, 0, 10, b"596", TRANSACTION, "range", "amount", "amount is -1.5", "customer", 5000, 6000
    )
    letters = [
        first,
        replace(first, id=f"{topic}-0-9", offset=9, key=None, value=b"\xff\x00", reason="unknown-framing", field=""),
        replace(first, id=f"{topic}-0-12", offset=12, value=None, reason="null-value", failed_at_ms=9000),
        replace(first, id=f"{topic}-0-11", offset=11, key=b"1", value=b"{}", reason="unknown-framing"),
    ]
    # A crash under at-least-once leaves some in the topic twice.
    write_letters(kafka.kafka, [*letters, letters[0]])
    environment = {"MILLSTREAM_STATE_DIR": str(stack.state_dir), "COLUMNS": "200"}
    return Desk(kafka.kafka, environment, topic, letters)


def test_list_filters_and_says_what_each_is(desk: Desk) -> None:
    rows = [json.loads(line) for line in desk.run("list", "--topic", desk.topic, "--json").splitlines()]
    assert {row["id"] for row in rows} == {letter.id for letter in desk.letters}
    assert rows[-1]["id"] == f"{desk.topic}-0-12"
    assert not any(row["redriven"] for row in rows)
    table = desk.run("list", "--topic", desk.topic, "--reason", "range")
    assert f"{desk.topic}-0-10" in table
    assert f"{desk.topic}-0-9" not in table
    since = desk.run("list", "--topic", desk.topic, "--since", "1970-01-01T00:00:08", "--json")
    assert [json.loads(line)["id"] for line in since.splitlines()] == [f"{desk.topic}-0-12"]


def test_show_decodes_what_can_be_decoded_and_dumps_the_rest(desk: Desk) -> None:
    shown = json.loads(desk.run("show", f"{desk.topic}-0-10", "--json"))
    assert base64.b64decode(shown["value"]) == TRANSACTION
    assert shown["fields"]["customer_id"] == 596
    assert shown["fields"]["amount"] == -1.5
    text = desk.run("show", f"{desk.topic}-0-9")
    assert "00000000  ff 00" in text
    assert "key: null" in text
    assert "neither framed Avro nor" in text
    with pytest.raises(Misconfigured, match="no dead letter 'nowhere-0-0'"):
        desk.run("show", "nowhere-0-0")


def test_summary_counts_by_topic_and_reason(desk: Desk) -> None:
    desk.run("redrive", "--topic", desk.topic, "--reason", "range")
    desk.came_back(1)

    def counted() -> list[tuple[str, int, int]]:
        rows = [row for row in json.loads(desk.run("summary", "--json")) if row["topic"] == desk.topic]
        return [(row["reason"], row["count"], row["redriven"]) for row in rows]

    wait_until(lambda: sum(redriven for _, _, redriven in counted()) > 0, 30)
    assert counted() == [
        ("null-value", 1, 0),
        ("range", 1, 1),
        ("unknown-framing", 2, 0),
    ]


def test_the_original_bytes_go_back_in_order_and_only_once(desk: Desk) -> None:
    assert json.loads(desk.run("redrive", "--topic", desk.topic, "--dry-run", "--json"))["sent"] == 4
    assert desk.came_back() == []
    assert "1 sent back to" in desk.run("redrive", "--id", f"{desk.topic}-0-12")
    done = json.loads(desk.run("redrive", "--topic", desk.topic, "--json"))
    assert (done["sent"], done["already"]) == (3, 1)
    assert desk.came_back(4) == [(b"596", None), (None, b"\xff\x00"), (b"596", TRANSACTION), (b"1", b"{}")]
    again = json.loads(desk.run("redrive", "--topic", desk.topic, "--json"))
    assert (again["sent"], again["already"]) == (0, 4)
    assert len(desk.came_back(4)) == 4


def test_records_of_a_topic_that_is_gone_stay(desk: Desk) -> None:
    gone = f"{desk.topic}-gone"
    write_letters(desk.kafka, [replace(desk.letters[0], id=f"{gone}-0-1", topic=gone)])
    assert f"1 stay: there is no topic {gone} any more" in desk.run("redrive", "--topic", gone)
    assert gone not in desk.run("redrive", "--topic", desk.topic)


def test_redriving_everything_must_be_said(desk: Desk) -> None:
    assert desk.run("redrive", code=2) == ""
    assert desk.run("redrive", "--all", "--reason", "range", code=2) == ""


MARKERS = RecordWriter(CONTRACTS[REDRIVEN].schema)


def redrive_own(desk: Desk, writer: RecordWriter = MARKERS) -> RedriveResult:
    def read() -> Iterator[DeadLetter]:
        found = read_dead_letters(desk.kafka, CONTRACTS[DEAD_LETTERS].schema, lambda _: None, pytest.fail)
        return filter(Selection(topic=desk.topic), found)

    return redrive(desk.kafka, read, writer, 1, 1)


def test_a_crash_before_the_commit_leaves_no_trace(desk: Desk) -> None:
    redrive_own(replace(desk, topic="no-such-topic"))  # so that the marker topic is there
    settings = {"transactional.id": transactional_id(desk.kafka), "transaction.timeout.ms": 60_000}
    crashed = Producer({**desk.kafka, **settings})
    crashed.init_transactions(30)
    crashed.begin_transaction()
    for letter in desk.letters[:2]:
        crashed.produce(desk.topic, letter.value, letter.key)
        crashed.produce(REDRIVEN, b"", letter.id.encode())
    crashed.flush(30)
    assert len(redrive_own(desk).sent) == 4
    assert len(desk.came_back(4)) == 4
    assert redrive_own(desk).already == 4


def test_of_two_operators_at_once_one_sends(desk: Desk) -> None:
    class Overtaken(RecordWriter):
        """Has read the markers and is about to send when the other operator sends everything."""

        def encode(self, batch: Batch) -> list[bytes]:
            assert len(redrive_own(desk).sent) == 4
            return super().encode(batch)

    with pytest.raises(Fenced):
        redrive_own(desk, Overtaken(CONTRACTS[REDRIVEN].schema))
    assert len(desk.came_back(4)) == 4
