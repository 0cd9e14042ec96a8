"""The code of the guide's page publishing.md: a producer without Millstream, and Feast's client on the online view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import confluent_kafka
import pytest

from guide import ROOT, blocks
from millstream.adapters.embedded.endpoints import Endpoints
from millstream.adapters.feast.repo import apply
from millstream.adapters.files.contracts import load_contract
from millstream.adapters.files.project_template import write_project
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.schema import SchemaId
from millstream.settings import load_settings

PRODUCER, FEAST = (block for block in blocks(ROOT / "infra" / "docs" / "publishing.md") if block.language == "python")


class RecordingProducer:
    """Takes records where confluent-kafka's producer would send them."""

    sent: list[tuple[str, bytes, str]] = []  # noqa: RUF012

    def __init__(self, settings: dict[str, Any]) -> None:
        assert settings["partitioner"] == "murmur2_random"

    def produce(self, topic: str, value: bytes, key: str) -> None:
        self.sent.append((topic, value, key))

    def flush(self) -> int:
        return 0


def test_a_producer_of_other_packages_writes_what_stages_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(tmp_path / "mine", "cards")
    monkeypatch.chdir(tmp_path / "mine")
    monkeypatch.setattr(confluent_kafka, "Producer", RecordingProducer)
    exec(PRODUCER.text, {})
    ((topic, value, key),) = RecordingProducer.sent
    contract = load_contract(load_settings(), topic)
    known = {SchemaId("fingerprint", contract.schema.fingerprint): contract.schema}
    decoded = RecordReader(contract.schema, known.get).decode([value], 10_000)
    assert not decoded.rejections
    assert {name: column.tolist() for name, column in decoded.batch.columns.items()} == {
        "transaction_id": [9_000_001],
        "customer_id": [7],
        "terminal_id": [3],
        "event_time_ms": [1_541_030_400_000],
        "amount": [250.0],
    }
    sound, rejections = contract.validate(decoded.batch, decoded.batch.columns["event_time_ms"], [key.encode()])
    assert sound.all()
    assert not rejections


@pytest.mark.redis
def test_feast_s_client_reads_the_online_view(
    valkey: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(tmp_path / "guide_feast", "cards")
    monkeypatch.chdir(tmp_path / "guide_feast")
    monkeypatch.setenv("MILLSTREAM_REDIS_URL", valkey.redis_url)
    apply(load_settings())
    names: dict[str, Any] = {}
    exec(FEAST.text, names)
    assert names["features"]["paid_amount"] == [12.0]
    assert names["features"]["customer_count_amount_1d"] == [None]
