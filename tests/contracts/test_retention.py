"""How long topics keep their records: as set, and never less than state is rebuilt from."""

from __future__ import annotations

import uuid

import pytest
from cards import DAY_MS, topology, view
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

from services.adapters.endpoints import Endpoints
from services.adapters.retention import alter_retention, needed_ms, retention_ms, short_topics
from services.adapters.topics import create_topics
from services.errors import Misconfigured
from services.settings import load_settings
from services.topology import LABELS, SCORED, Topic

VIEWS = view("activity", "customer", days=(1, 30)), view("terminal_activity", "terminal", days=(7,))


def test_topics_must_keep_what_state_is_rebuilt_from() -> None:
    assert needed_ms(topology(*VIEWS), 180) == {
        "transactions": 31 * DAY_MS,
        "transactions.terminal": 8 * DAY_MS,
        SCORED: 180 * DAY_MS,
        LABELS: 180 * DAY_MS,
    }


def test_the_setting_is_refused_where_it_keeps_too_little() -> None:
    assert load_settings({}).retention_days is None
    assert retention_ms(None, {"a": 10 * DAY_MS}) == -1
    assert retention_ms(10, {"a": 10 * DAY_MS}) == 10 * DAY_MS
    with pytest.raises(Misconfigured, match=r"MILLSTREAM_RETENTION_DAYS is 9; a must keep .* at least 10 days"):
        retention_ms(9, {"a": 9 * DAY_MS + 1, "b": DAY_MS})


@pytest.mark.kafka
def test_topics_are_created_and_altered_with_it_and_compacted_ones_are_not(kafka: Endpoints) -> None:
    name = f"kept-{uuid.uuid4().hex[:8]}"
    topics = [Topic(name, "k", "w", ()), Topic(f"{name}.changelog", "k", "w", (), "compact")]
    create_topics(kafka.kafka, topics, 1, 1, 3 * DAY_MS)
    assert [each.kept_ms for each in short_topics(kafka.kafka, {name: 4 * DAY_MS})] == [3 * DAY_MS]
    assert "millstream init --alter" in str(short_topics(kafka.kafka, {name: 4 * DAY_MS})[0])
    assert short_topics(kafka.kafka, {name: 3 * DAY_MS, f"{name}.changelog": 99 * DAY_MS}) == []
    assert alter_retention(kafka.kafka, topics, 5 * DAY_MS) == [name]
    assert short_topics(kafka.kafka, {name: 5 * DAY_MS}) == []
    asked = ConfigResource(ConfigResource.Type.TOPIC, f"{name}.changelog")
    admin = AdminClient(dict(kafka.kafka))
    assert admin.describe_configs([asked])[asked].result(30)["retention.ms"].value != str(5 * DAY_MS)
