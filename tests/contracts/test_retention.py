"""How long topics keep their records: as set, and never less than state is rebuilt from."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

from cards import DAY_MS, topology, view
from millstream.adapters.embedded.endpoints import Endpoints
from millstream.adapters.kafka.retention import alter_retention, needed_ms, retention_ms, short_topics
from millstream.adapters.kafka.topics import create_topics
from millstream.core.windows.store import Sources, WindowStore
from millstream.errors import Misconfigured
from millstream.settings import load_settings
from millstream.stages.featurize.upstream import upstream_of
from millstream.topology import LABELS, SCORED, Topic

VIEWS = view("activity", "customer", days=(1, 30)), view("terminal_activity", "terminal", days=(7,))


def test_topics_must_keep_what_state_is_rebuilt_from() -> None:
    assert needed_ms(topology(*VIEWS), 180) == {
        "transactions": 31 * DAY_MS,
        "transactions.terminal": (7 + 2 * 31) * DAY_MS,
        SCORED: 180 * DAY_MS,
        LABELS: 180 * DAY_MS,
    }


def test_a_later_stage_retains_as_much_as_its_topic_must_keep_and_no_more() -> None:
    """One upstream partition idles just within the lag: the watermark is as far behind as it can be."""
    found = topology(*VIEWS)
    upstream = upstream_of(found, found.stages[1], 2)
    assert upstream is not None
    needed = needed_ms(found, 180)[found.stages[1].input]
    store = WindowStore((VIEWS[1],), upstream)
    step_ms, last_ms = DAY_MS // 2, 200 * DAY_MS
    times_ms = np.arange(0, last_ms + 1, step_ms)
    idle = np.full(2, last_ms - upstream.lag_ms)  # two keys of the partition that is behind
    times_ms = np.concatenate([times_ms, times_ms, idle])
    partitions = np.concatenate([np.zeros(len(times_ms) - 2), np.ones(2)]).astype(np.int64)
    keys = np.concatenate([np.repeat([1, 2], (len(times_ms) - 2) // 2), [3, 4]])
    order = np.argsort(times_ms, kind="stable")
    times_ms, partitions, keys = times_ms[order], partitions[order], keys[order]
    ids, terminals = np.arange(len(times_ms)), np.ones(len(times_ms), dtype=np.int64)
    store.update(terminals, times_ms, ids, np.ones((len(ids), 1)), Sources(partitions, keys))
    asked = np.array([store.watermark_ms])
    assert last_ms - needed <= store.watermark_ms - 7 * DAY_MS < last_ms - needed + step_ms
    found_count = store.update(terminals[:1], asked, ids[:1] - 1, np.ones((1, 1)), Sources(asked * 0, asked * 0 + 1))
    inside = (times_ms > asked[0] - 7 * DAY_MS) & (times_ms <= asked[0])
    assert found_count.features[0, 0] == inside.sum() + 1


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
