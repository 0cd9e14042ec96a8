"""Agents of a project: what they send and store follows from what was committed, whatever crashes and fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import millstream
from millstream.adapters.files.project_template import write_project
from millstream.errors import Misconfigured, Stop
from millstream.testing.agents import run_agent

COUNTS = {
    "type": "record",
    "name": "KeyCount",
    "namespace": "plant",
    "millstream": {"key": "device_id"},
    "fields": [{"name": "device_id", "type": "string"}, {"name": "count", "type": "long"}],
}
COUNT = """
import millstream

app = millstream.App()
counts = app.Table("counts", default=int)


@app.agent(app.topic("events"), sink=[app.topic("key-counts")])
async def count(events):
    async for event in events:
        counts[event["device_id"]] += 1
        yield {"device_id": event["device_id"], "count": counts[event["device_id"]]}
"""


AGENT = """
@app.agent("events")
async def {name}(events):
    {body}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("agents") / "plant"
    write_project(folder, "blank")
    (folder / "schemas" / "key-counts.avsc").write_text(json.dumps(COUNTS))
    return folder


def declare(project: Path, text: str) -> None:
    (project / "feature_repo" / "agents.py").write_text(text)


def rows(count: int, keys: int = 3) -> list[dict[str, Any]]:
    return [
        {"id": f"e{i}", "device_id": f"d{i % keys}", "event_time_ms": 1_700_000_000_000 + i, "value": float(i)}
        for i in range(count)
    ]


def in_order(sent: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for each in sent:
        found.setdefault(each["device_id"], []).append(each["count"])
    return found


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(crashes=st.integers(0, 5), batch_records=st.integers(1, 9), seed=st.integers(0, 99))
def test_each_event_is_counted_once_whatever_crashes(
    project: Path, crashes: int, batch_records: int, seed: int
) -> None:
    declare(project, COUNT)
    sent = run_agent("count", rows(40), project, crashes=crashes, batch_records=batch_records, seed=seed)
    expected = {f"d{key}": list(range(1, len(range(key, 40, 3)) + 1)) for key in range(3)}
    assert in_order(sent["key-counts"]) == expected
    assert sent["dead-letters"] == []


FAILING = """
@app.agent(app.topic("events"))
async def fail(events):
    async for batch in events.take(4):
        for event in batch:
            counts[event["device_id"]] += 1
            await app.send("key-counts", value={"device_id": event["device_id"], "count": counts[event["device_id"]]})
            if event["value"] % 10 == 7:
                raise ValueError(f"no {event['value']:g}")
"""


@pytest.mark.parametrize("crashes", [0, 3])
def test_an_event_that_an_agent_fails_on_is_a_dead_letter_and_leaves_no_trace(project: Path, crashes: int) -> None:
    declare(project, COUNT + FAILING)
    sent = run_agent("fail", rows(40), project, crashes=crashes, batch_records=9, seed=1)
    reasons = [(each["reason"], each["stage"], each["detail"][:16]) for each in sent["dead-letters"]]
    assert sorted(reasons) == [("agent-failed", "fail", f"ValueError: no {n}"[:16]) for n in (17, 27, 37, 7)]
    good = [i for i in range(40) if i % 10 != 7]
    assert in_order(sent["key-counts"]) == {
        f"d{key}": list(range(1, sum(i % 3 == key for i in good) + 1)) for key in range(3)
    }


def test_what_does_not_fit_is_reported(project: Path) -> None:
    declare(
        project,
        COUNT + "\n@app.agent('events')\nasync def over(events):\n    async for event in events:\n        break\n",
    )
    with pytest.raises(Stop, match="the function ended; iterate over its stream"):
        run_agent("over", rows(3), project)
    declare(
        project, COUNT + "\n@app.agent('events')\nasync def early(events):\n    raise ValueError('no')\n    yield\n"
    )
    with pytest.raises(Stop, match=r"failed before it took an event: ValueError: no \(agents.py, line"):
        run_agent("early", rows(3), project)
    wrong = COUNT.replace('"count": counts[event["device_id"]]', '"count": "many"')
    declare(project, wrong)
    letters = run_agent("count", rows(2), project)["dead-letters"]
    assert ["does not fit the contract" in each["detail"] for each in letters] == [True, True]
    declare(project, COUNT)
    with pytest.raises(Misconfigured, match="there is no agent 'nobody'; there are: count"):
        run_agent("nobody", rows(1), project)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("app = 1\n", "0 apps found"),
        (COUNT.replace('"key-counts"', '"nowhere"'), "topic 'nowhere' has no contract; write schemas/nowhere.avsc"),
        (COUNT.replace('"key-counts"', '"scored"'), "'scored' is written by the engine only"),
        (COUNT.replace("async def count", "async def device"), "no agent may be called 'device': a stage is"),
        (COUNT.replace("default=int", "default=int, partitions=3"), "app.Table takes a name and a default"),
        (COUNT.replace("sink=", "concurrency=4, sink="), "concurrency cannot be given a meaning"),
        (COUNT + "\napp.GlobalTable('g')\n", "app.GlobalTable is not available"),
        (COUNT + "\n@app.timer(1.0, on_leader=True)\nasync def tick():\n    pass\n", "on_leader is not available"),
        (COUNT + "\n1 / 0\n", r"agents\.py, line 14: ZeroDivisionError"),
    ],
)
def test_a_declaration_that_cannot_be_honoured_is_refused_by_name(project: Path, text: str, message: str) -> None:
    declare(project, text)
    with pytest.raises(Misconfigured, match=message):
        millstream.open(project)


def test_streams_refuse_what_would_outlive_a_transaction(project: Path) -> None:
    declare(project, COUNT + AGENT.format(name="grouped", body="events.group_by('device_id')"))
    with pytest.raises(Stop, match=r"stream\.group_by is not available"):
        run_agent("grouped", rows(2), project)


COMMAND = """
@app.command()
async def say_topics():
    print("topics are", *sorted(app.topics_by_name))
"""


def test_agents_are_listed_and_commands_of_the_app_run(project: Path) -> None:
    declare(project, COUNT + COMMAND)
    environment = {**os.environ, "MILLSTREAM_PROJECT": str(project), "COLUMNS": "200"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "millstream", "agents", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    listed = run("list")
    assert listed.returncode == 0, listed.stderr
    assert all(each in listed.stdout for each in ("count", "events", "key-counts", "plant.count.changelog"))
    assert run("command", "say-topics").stdout == "topics are events key-counts\n"
    refused = run("command", "nope")
    assert (refused.returncode, "there are: say-topics" in refused.stderr) == (78, True)
