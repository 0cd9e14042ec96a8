"""The guide's page on Python, on real servers: what was computed in memory is what is served."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import millstream
from millstream.adapters.embedded import endpoints
from millstream.adapters.files.project_template import write_project
from millstream.settings import load_settings

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
        with project.serve(in_process=True, stages=["device"]):
            predictions = project.consume("predictions", last=0, follow=True, timeout_s=120)
            exec(producer, {})
            exec(plain_producer.replace("127.0.0.1:9092", address), {})
            assert [row["event_id"] for row in islice(predictions, 2)] == ["p1", "p2"]
            assert [row["id"] for row in project.consume("events", last=2)] == ["p1", "p2"]
            assert sum(1 for _ in project.consume("events")) == 2002
            late = {"id": "b", "device_id": "d", "event_time_ms": 1_700_000_000_000, "value": "much"}
            with pytest.warns(UserWarning, match="late and go to the dead letters") as warned:
                bad = project.publish("events", [late])
            assert warned[0].filename == __file__
            assert (bad.acked, bad.reasons, [row.field for row in bad.bad_rows]) == (0, {"type": 1}, ["value"])
            with pytest.raises(millstream.Misconfigured, match="no topic 'nothing'"):
                project.consume("nothing")
            with pytest.raises(millstream.Misconfigured, match=r"row 0: device_id is 1, and must be a text"):
                project.online_features([{"device_id": 1}])
            with pytest.raises(millstream.Misconfigured, match="there are: device_activity__events_1h"):
                project.online_features([{"device_id": "d1"}], ["age"])
            assert project.quality().height == 0
            assert list(project.alerts()) == []
    finally:
        endpoints.stop(settings)
