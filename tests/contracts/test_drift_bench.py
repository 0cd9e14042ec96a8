"""The drift bench's page holds its figures and nothing else; what cannot be measured is said."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from typer.testing import CliRunner

from millstream.cli import drift
from millstream.errors import Misconfigured
from millstream_lab import detectors
from millstream_lab.detectors import bench
from millstream_lab.detectors.bench import as_markdown
from millstream_lab.detectors.bench_parts import PARTS
from millstream_lab.tables import write_section

PAGE = Path(detectors.__file__).parent / "MONITORS.md"
FIGURES = PAGE.with_name("monitors.json")


def app() -> typer.Typer:
    made = typer.Typer()
    drift.register(made)
    bench.register(made)
    return made


def test_the_page_holds_exactly_what_the_figures_say(tmp_path: Path) -> None:
    copy = tmp_path / PAGE.name
    copy.write_text(PAGE.read_text())
    held = json.loads(FIGURES.read_text())
    write_section(copy, "millstream drift bench --markdown", as_markdown(held))
    assert copy.read_text() == PAGE.read_text()
    assert set(held) == set(PARTS)


def test_a_part_that_is_measured_is_shown_and_leaves_the_others_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    file.write_text(json.dumps({"calm": [{"budget": "b", "days": 3, "allowed": 1.0, "opened": {"data": 2}}]}))
    options = ["drift", "bench", "--part", "indices", "--json", str(file), "--markdown", str(tmp_path / "page.md")]
    done = CliRunner().invoke(app(), options)
    assert done.exit_code == 0, done.output
    held = json.loads(file.read_text())
    assert set(held) == {"calm", "indices"}
    assert all(each["documented"] == each["found"] for each in held["indices"])
    assert "HDDM-W" in done.output
    assert "2 data" in (tmp_path / "page.md").read_text()
    shown = CliRunner().invoke(app(), ["drift", "bench", "--show", "--json", str(file)])
    assert "2 data" in shown.output


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    run = CliRunner().invoke
    assert "there is no part speed" in run(app(), ["drift", "bench", "--part", "speed"]).output.replace("\n", " ")
    assert "is no budget" in run(app(), ["drift", "bench", "--false-alarms", "few"]).output
    nothing = run(app(), ["drift", "bench", "--show", "--json", str(tmp_path / "none.json")])
    assert isinstance(nothing.exception, Misconfigured)
