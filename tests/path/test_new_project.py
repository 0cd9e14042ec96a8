"""What `millstream new` writes works as it is: each template's tests and sample events."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

import millstream
from millstream.adapters.files.project_template import write_project
from millstream.errors import Misconfigured
from millstream.testing import replay


@pytest.mark.parametrize(("template", "decisions"), [("blank", "aaara"), ("cards", "aaab")])
def test_a_template_s_own_tests_pass_and_its_events_are_replayed(template: str, decisions: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    write_project(folder, template)
    found = runpy.run_path(str(folder / "tests" / "test_project.py"))
    tests = [value for name, value in found.items() if name.startswith("test_")]
    assert len(tests) == 3
    for test in tests:
        test()
    (events,) = folder.glob("*.csv")
    assert "".join(each[0] for each in millstream.open(folder).replay(events).scored["decision"]) == decisions


def test_rows_are_read_as_events_or_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(tmp_path / "mine", "blank")
    monkeypatch.chdir(tmp_path / "mine" / "schemas")
    assert replay([]).scored == []
    row = {"id": "e1", "device_id": "d1", "event_time_ms": "2026-01-01T00:00:00Z", "value": 1}
    assert replay([row]).scored[0]["event_time_ms"] == 1_767_225_600_000
    with pytest.raises(Misconfigured, match=r"rows cannot be read as events:\n  row 1, value: "):
        replay([row, {**row, "value": "much"}])
    with pytest.raises(Misconfigured, match=r"table 'rows' does not fit the contract:\n  .*'value'"):
        replay([{name: value for name, value in row.items() if name != "value"}])
