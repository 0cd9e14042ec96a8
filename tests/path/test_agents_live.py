"""The guide's agents on a real broker: predictions are counted exactly once through kill -9."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from millstream.adapters.embedded import endpoints as servers
from millstream.adapters.files.project_template import write_project
from millstream.adapters.kafka.explain_record import explain_record
from millstream.adapters.kafka.producer import Deliveries, drain, open_producer, publish
from millstream.app.agents import encoder_of
from millstream.app.setup import initialise
from millstream.settings import Settings, load_settings
from millstream.testing.agents import run_agent
from running import Workers, committed, wait_until

GUIDE = Path(__file__).parents[2] / "infra" / "docs" / "agents.md"
COUNT = 3_000
STAGES = ("device", "group", "count")


TIMER = """

@app.timer(0.5)
async def beat():
    await groups.send(value={"group": "beat"})
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}[^\n]*\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


def with_agents(folder: Path, text: str) -> Path:
    """Write a project with the guide's contracts and these agents."""
    write_project(folder, "blank")
    for each in blocks("json"):
        topic = re.sub(r"(?<!^)([A-Z])", r"-\1", json.loads(each)["name"]).lower() + "s"
        (folder / "schemas" / f"{topic}.avsc").write_text(each)
    contract = json.loads((folder / "schemas" / "events.avsc").read_text())
    contract |= {"name": "EventByHour", "fields": [*contract["fields"], {"name": "hour", "type": "int"}]}
    (folder / "schemas" / "events-by-hour.avsc").write_text(json.dumps(contract))
    (folder / "feature_repo" / "agents.py").write_text(text)
    return folder


def test_the_guide_s_enriching_agent_and_its_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, enrich, test = blocks("python")
    monkeypatch.chdir(with_agents(tmp_path / "mine", enrich))
    exec(test, {})
    assert len(run_agent("enrich", [])["events-by-hour"]) == 0


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Settings]:
    folder = with_agents(tmp_path / "mine", blocks("python")[0] + TIMER)
    settings = load_settings({}, project=folder, partitions=2)
    try:
        servers.start(settings, print)
        yield settings
    finally:
        servers.stop(settings)


@pytest.mark.kafka
def test_predictions_are_counted_exactly_once_through_kill_9(project: Settings) -> None:
    assembly = initialise(project, print)
    kafka, resolve = servers.resolve(project).kafka, assembly.resolver()
    encode = encoder_of(assembly, "events")
    start_ms = time.time_ns() // 1_000_000 - 3_600_000
    sent = [
        encode(None, {"id": f"e{i}", "device_id": f"d{i % 7}", "event_time_ms": start_ms + i * 100, "value": i % 3.0})
        for i in range(COUNT)
    ]
    producer, deliveries = open_producer(kafka), Deliveries()
    publish(
        producer,
        "events",
        [key for key, _ in sent],
        [value for _, value in sent],
        deliveries=deliveries,
        tags=range(COUNT),
    )
    drain(producer, deliveries)

    def rows(topic: str) -> list[dict[str, Any]]:
        return [explain_record(message.value(), resolve)[1] for message in committed(kafka, topic)]

    state_dir = project.state_dir.resolve()
    environment = {"MILLSTREAM_PROJECT": str(project.feature_repo.parent), "MILLSTREAM_BATCH_RECORDS": "100"}
    workers, random_ = Workers(state_dir, environment), random.Random(1)
    try:
        for _ in range(2):
            before = len(rows("decision-counts"))
            workers.start("all", STAGES)
            wait_until(lambda before=before: before < len(rows("decision-counts")), 60, workers)
            time.sleep(random_.random())
            workers.kill("all")
        workers.start("all", STAGES)
        wait_until(lambda: sum(row["group"] != "beat" for row in rows("decision-counts")) >= COUNT, 90, workers)
        assert workers.stop("all") == 0
    finally:
        workers.end()
    found: dict[str, list[int]] = {}
    for row in rows("decision-counts"):
        found.setdefault(row["group"], []).append(row["count"])
    beats = found.pop("beat")
    assert beats == list(range(1, len(beats) + 1))
    predictions = rows("predictions")
    assert len(predictions) == COUNT
    expected = Counter(f"{row['decision']} {row['event_time_ms'] // 60_000}" for row in predictions)
    assert found == {group: list(range(1, count + 1)) for group, count in expected.items()}
