"""What a feature repo declares is what `scored` holds: a new aggregation needs nothing else, of any trade."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from cards import events
from millstream.adapters.files.monitors_file import FILE
from millstream.app.assembly import assemble
from millstream.app.replaying import History
from millstream.cli import features
from millstream.cli.doctor import check_feature_repo
from millstream.core.batch import Batch
from millstream.errors import Misconfigured
from millstream.settings import Settings, load_settings
from repos import CONTRACT, VIEW, repo

HOUR_MS = 3_600_000


def test_an_aggregation_added_to_the_reference_repo_is_scored_with(tmp_path: Path) -> None:
    folder = tmp_path / "repo"
    shutil.copytree(load_settings({}).feature_repo, folder)
    file = folder / "definitions.py"
    line = "            schema.append(Field(name=name, dtype=dtype))\n"
    text = file.read_text()
    assert line in text
    file.write_text(
        text.replace(
            line,
            line + '    aggregations.append(Aggregation(column="amount", function="max", '
            'time_window=timedelta(hours=36), name="largest_36h"))\n'
            '    schema.append(Field(name="largest_36h", dtype=Float64))\n',
        )
    )
    assembly = assemble(load_settings({}, feature_repo=folder))
    given = events(300)
    scored = History(assembly).feed(given).scored
    assert scored.length == 300
    for view, key in (("customer_activity", "customer_id"), ("terminal_activity", "terminal_id")):
        assert f"{view}__largest_36h" in dict(assembly.declaration.service.features)
        for row in range(300):
            same = given.columns[key][: row + 1] == given.columns[key][row]
            age_ms = given.columns["event_time_ms"][row] - given.columns["event_time_ms"][: row + 1]
            inside = same & (age_ms >= 0) & (age_ms < 36 * HOUR_MS)
            assert scored.columns[f"{view}__largest_36h"][row] == given.columns["amount"][: row + 1][inside].max()


def readings(count: int) -> Batch:
    """Return readings of three machines, one a minute, some without a temperature."""
    rng = np.random.default_rng(3)
    return Batch(
        count,
        {
            "reading_id": np.array([f"r{at}" for at in range(count)], dtype=object),
            "machine_id": np.array([f"press {at}" for at in rng.integers(0, 3, count)], dtype=object),
            "read_at_ms": 1_700_000_000_000 + np.arange(count) * 60_000,
            "celsius": np.round(rng.uniform(20, 110, count), 1),
            "state": np.array(["on"] * count, dtype=object),
        },
        {"celsius": rng.random(count) < 0.2},
    )


@pytest.mark.parametrize("added", [False, True])
def test_a_repo_of_machines_is_scored_by_its_own_rule(tmp_path: Path, added: bool) -> None:
    view = VIEW
    if added:
        view = view.replace(
            "    schema=[",
            '    schema=[Field(name="readings_2h", dtype=Int64), ',
        ).replace(
            "    aggregations=[\n",
            "    aggregations=[\n"
            '        Aggregation(column="state", function="count", time_window=timedelta(hours=2), '
            'name="readings_2h"),\n',
        )
    made = repo(tmp_path, view=view)
    schemas = tmp_path / "schemas"
    schemas.mkdir()  # the engine's own topics keep their contracts without being repeated here
    (schemas / "readings.avsc").write_text(CONTRACT)
    settings = Settings(feature_repo=made.feature_repo, state_dir=made.state_dir, schemas_dir=schemas)
    given = readings(200)
    replayed = History(assemble(settings)).feed(given)
    scored = replayed.scored
    assert (scored.length, replayed.dead_letters.length) == (200, 0)
    keys, times_ms = given.columns["machine_id"], given.columns["read_at_ms"]
    known = ~given.nulls["celsius"]
    hot = known & (given.columns["celsius"] > 90)
    assert scored.columns["score"].tolist() == hot.astype(float).tolist()
    for row in range(200):
        age_ms = times_ms[row] - times_ms[: row + 1]
        same = keys[: row + 1] == keys[row]
        recent = same & known[: row + 1] & (age_ms < HOUR_MS)
        if recent.any():
            hottest = given.columns["celsius"][: row + 1][recent].max()
            assert scored.columns["heat__hottest_1h"][row] == np.float32(hottest)
        else:
            assert scored.nulls["heat__hottest_1h"][row]
        if added:
            assert scored.columns["heat__readings_2h"][row] == (same & (age_ms < 2 * HOUR_MS)).sum()


@pytest.mark.parametrize(("text", "name"), [("ignore = ['typo']", "typo"), ("segment_by = 'nope'", "nope")])
def test_monitors_that_name_no_feature_are_refused_by_every_command(tmp_path: Path, text: str, name: str) -> None:
    folder = tmp_path / "repo"
    shutil.copytree(load_settings({}).feature_repo, folder)
    (folder / FILE).write_text(text)
    settings = load_settings({}, feature_repo=folder, state_dir=tmp_path / "state")
    said = rf"{FILE} is wrong:\n.*'{name}' is none of the \d+ features .* such as \w+"
    with pytest.raises(Misconfigured, match=said):
        assemble(settings)
    (finding,) = check_feature_repo(settings)
    assert finding.level == "fail"
    assert re.search(said, finding.found)
    environment = {"MILLSTREAM_FEATURE_REPO": str(folder), "MILLSTREAM_STATE_DIR": str(tmp_path / "state")}
    app = typer.Typer()
    features.register(app)
    for command in ("show", "apply"):
        asked = CliRunner().invoke(app, ["features", command], env=environment)
        assert re.search(said, str(asked.exception))
