"""The guide's page on Python, on real servers: what was computed in memory is what is served."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import millstream
from millstream.adapters.embedded import endpoints
from millstream.adapters.files.project_template import write_project
from millstream.settings import load_settings

LATEST_MS = 1_769_000_000_000
PAGE = Path(__file__).parents[2] / "infra" / "docs" / "python-api.md"


@pytest.mark.kafka
def test_the_page_on_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python tests/path/test_python_api_live.py\n(.*?)```", PAGE.read_text(), re.DOTALL)
    script, producer, plain_producer = blocks
    assert script.count("\n") <= 26
    assert producer.count("\n") - producer.count("\n\n") <= 3
    write_project(tmp_path / "mine", "blank")
    monkeypatch.chdir(tmp_path / "mine")
    settings = load_settings()
    address = endpoints.start(settings, print).kafka["bootstrap.servers"]
    try:
        names: dict[str, Any] = {}
        exec(script, names)
        assert (names["published"].acked, names["published"].bad_rows) == (2000, [])
        answers = ("event_id", "score", "decision", "model_version")
        live, offline = (names[run].select(answers).sort("event_id") for run in ("live", "offline"))
        assert live.equals(offline)
        assert set(live["decision"]) == {"accept", "review"}
        newest = names["replayed"].scored.filter(device_id="d1")[-1].to_dicts()[0]
        read = names["features"].to_dicts()[0]
        assert read == {name: newest[name] for name in read}

        project = names["project"]
        exec(producer, {})
        exec(plain_producer.replace("127.0.0.1:9092", address), {})
        assert [row["id"] for row in project.consume("events", last=2)] == ["p1", "p2"]
        assert sum(1 for _ in project.consume("events")) == 2002
        bad = project.publish("events", [{"id": "b", "device_id": "d", "event_time_ms": LATEST_MS, "value": "much"}])
        assert (bad.acked, bad.reasons, [row.field for row in bad.bad_rows]) == (0, {"type": 1}, ["value"])
        with pytest.raises(millstream.Misconfigured, match="no topic 'nothing'"):
            project.consume("nothing")
    finally:
        endpoints.stop(settings)
