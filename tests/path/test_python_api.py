"""The Python API: a table of events through the stages of a project, with no server."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

import millstream
from millstream.adapters.files.project_template import write_project
from millstream.app import durations, tables
from millstream.app.file_format import FileFormat
from millstream.app.project import live, offline
from millstream.app.tables import in_python
from millstream.errors import Misconfigured
from millstream.settings import Settings
from millstream.topology import PREDICTIONS

START_MS = 1_533_081_600_000  # 2018-08-01T00:00:00Z


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> millstream.Project:
    return millstream.open(state_dir=tmp_path_factory.mktemp("state"))


@pytest.fixture
def events() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "transaction_id": [1, 2, 3, 2, 4],
            "event_time_ms": [START_MS + 60_000 * minute for minute in (0, 1, 2, 2, 3)],
            "customer_id": [7, 7, 8, 7, 7],
            "terminal_id": [3, 3, 3, 3, 4],
            "amount": [10.0, 20.0, 300.0, 20.0, -5.0],
        }
    )


def test_a_project_names_what_it_serves(project: millstream.Project) -> None:
    assert (project.name, project.topic) == ("millstream_cards", "transactions")
    assert "customer_activity__customer_count_amount_1d" in project.features


def test_a_table_is_replayed_without_a_server(project: millstream.Project, events: pl.DataFrame) -> None:
    seen: list[int] = []
    replayed = project.replay(events, label_column="none", progress=lambda rows, _seconds: seen.append(rows))
    counts = dict(replayed.scored.select("transaction_id", "customer_activity__customer_count_amount_1d").rows())
    assert counts == {1: 1, 2: 2, 3: 1}
    assert replayed.dead_letters["reason"].to_list() == ["range"]
    fields = project.assembly.contracts[PREDICTIONS].schema.fields
    assert replayed.predictions.columns == [field.name for field in fields]
    assert replayed.predictions.select("event_id", "key", "event_time_ms", "decision").rows() == [
        ("1", "7", START_MS, "allow"),
        ("2", "7", START_MS + 60_000, "allow"),
        ("3", "8", START_MS + 120_000, "block"),
    ]
    assert seen == [5]


def test_pandas_rows_a_file_and_polars_are_the_same_events(
    project: millstream.Project, events: pl.DataFrame, tmp_path: Path
) -> None:
    events.write_csv(tmp_path / "events.csv")
    tables = [events, events.to_pandas(), events.to_dicts(), tmp_path / "events.csv", str(tmp_path / "events.csv")]
    first, *others = (project.replay(table, label_column="none").scored for table in tables)
    clock = [name for name in first.columns if name.endswith("_at_ms")]
    for other in others:
        assert other.drop(clock).equals(first.drop(clock))


def test_rows_that_are_no_events_are_returned(project: millstream.Project, events: pl.DataFrame) -> None:
    texts = events.with_columns(pl.col("amount").cast(pl.String)).with_columns(
        amount=pl.when(pl.col("transaction_id") == 3).then(pl.lit("much")).otherwise("amount")
    )
    replayed = project.replay(texts, label_column="none")
    assert [(row.row, row.field, row.value) for row in replayed.unreadable] == [(2, "amount", "much")]
    assert replayed.scored["transaction_id"].to_list() == [1, 2]


def test_labels_that_features_need_are_asked_for(project: millstream.Project, events: pl.DataFrame) -> None:
    with pytest.raises(Misconfigured, match=r'^table .events. has no column .is_fraud..*label_column="none"'):
        project.replay(events)


def test_a_wrong_setting_is_refused_by_name() -> None:
    with pytest.raises(Misconfigured, match="MILLSTREAM_LATE_POLICY"):
        millstream.open(late_policy="perhaps")
    with pytest.raises(Misconfigured, match=r"no setting 'late_polcy'; did you mean late_policy\?"):
        millstream.open(late_polcy="drop")
    assert millstream.open(kafka={"client.id": "mine"}).settings.kafka == {"client.id": "mine"}


def test_what_is_public_is_there() -> None:
    assert all(getattr(millstream, name).__doc__ for name in millstream.__all__)
    assert millstream.__all__ == sorted(millstream.__all__)


def test_columns_are_mapped_and_a_message_about_one_names_the_table(
    project: millstream.Project, events: pl.DataFrame
) -> None:
    renamed = events.rename({"amount": "paid"})
    with pytest.raises(Misconfigured) as refused:
        project.replay(renamed.to_dicts(), label_column="none")
    assert str(refused.value).startswith("table 'events' does not fit the contract:\n  no column for 'amount'")
    assert "columns={'COLUMN': 'amount'}" in str(refused.value)
    replayed = project.replay(renamed, label_column="none", columns={"paid": "amount"})
    assert replayed.scored["amount"].to_list() == [10.0, 20.0, 300.0]
    assert project.replay([]).scored.height == 0


def test_what_a_file_does_not_say_of_itself_is_declared(
    project: millstream.Project, events: pl.DataFrame, tmp_path: Path
) -> None:
    seconds = events.with_columns(at=pl.col("event_time_ms") // 1000).drop("event_time_ms")
    (tmp_path / "events.csv").write_text(seconds.write_csv(separator=";").replace(".", ","))
    how = {"columns": {"at": "event_time_ms"}, "separator": ";", "decimal_comma": True, "time_unit": {"at": "s"}}
    replayed = project.replay(tmp_path / "events.csv", label_column="none", **how)
    assert replayed.scored["event_time_ms"].to_list() == events["event_time_ms"].to_list()[:3]
    with pytest.raises(Misconfigured, match=r"^separator ';;': one character"):
        project.replay(tmp_path / "events.csv", separator=";;")
    with pytest.raises(TypeError, match="sepparator"):
        project.replay(tmp_path / "events.csv", sepparator=";")  # type: ignore[call-arg]


def test_an_option_that_a_message_names_is_a_parameter() -> None:
    """No message that the API can raise names a command-line option that stays one."""
    methods = (millstream.Project.replay, millstream.Project.train, millstream.Project.publish)
    known = {name for method in methods for name in inspect.signature(method).parameters}
    known |= FileFormat.__annotations__.keys()
    package = Path(millstream.__file__).parent
    roots = ["core/avro/*.py", "stages/retrain/*.py"]
    roots += [f"adapters/files/{name}.py" for name in ("csv_rows", "label_file", "tabular")]
    roots += [f"app/{name}.py" for name in ("replay_labels", "lateness", "training_data", "file_format")]
    named = set()
    for file in (file for root in roots for file in package.glob(root)):
        texts = [str(node.value) for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)]
        named |= {name for text in texts for name in re.findall(r"(?<!-)--[a-z][a-z-]*", re.sub("`[^`]*`", "", text))}
    named.remove("--out")  # it is part of a command, which a message may name
    assert {"--map", "--label-column", "--time-unit", "--separator", "--as-of"} <= named
    for option in named:
        shown = in_python(f"use {option} COLUMN=x" if option == "--map" else f"use {option}")
        found = re.fullmatch(r"use (\w+)(=.*)?", shown)
        assert found is not None, shown
        assert found[1] in known, shown


def test_the_package_imports_nothing_heavy() -> None:
    heavy = ("numba", "numpy", "feast", "mlflow", "lightgbm", "polars", "river", "confluent_kafka", "faust", "pydantic")
    uses = (
        "millstream.Retry",
        "from millstream.cli import program as p, sys as s; s.argv[1:] = ['--help']; p()(standalone_mode=False)",
    )
    for use in uses:
        code = f"import millstream, sys; {use}; print([name for name in {heavy!r} if name in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip().endswith("[]"), use


def test_the_examples_of_the_api(tmp_path: Path) -> None:
    write_project(tmp_path / "mine", "blank")
    names = {"project": millstream.open(tmp_path / "mine")}
    for module in (offline, live, durations, tables):
        assert doctest.testmod(module, extraglobs=names).failed == 0
    assert doctest.testmod(offline, extraglobs=names).attempted > 2


def test_a_folder_is_opened_by_name_or_from_below(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"is no project.*millstream new"):
        millstream.open(tmp_path)
    assert millstream.open("tests").name == "millstream_cards"


def test_other_servers_are_used_within_the_block_only(
    project: millstream.Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Settings] = []

    @contextmanager
    def nothing_started(settings: Settings, *_: object) -> Iterator[None]:
        seen.append(settings)
        yield

    monkeypatch.setattr("millstream.app.serve_block.serve_block", nothing_started)
    before = project.settings
    with project.serve(kafka="host:9092", redis="redis://:secret@host/1") as same:
        assert same is project
        assert seen == [project.settings] == [project.assembly.settings]
    assert seen[0].kafka == {"bootstrap.servers": "host:9092"}
    assert seen[0].redis_url is not None
    assert seen[0].redis_url.get_secret_value() == "redis://:secret@host/1"
    assert seen[0].state_dir == before.state_dir
    assert (project.settings, project.assembly.settings) == (before, before)
    with pytest.raises(Misconfigured, match="MILLSTREAM_REDIS_URL"), project.serve(redis="host"):
        pass
    assert project.settings == before


def test_arguments_of_training_are_checked(project: millstream.Project, events: pl.DataFrame) -> None:
    replayed = project.replay(events, label_column="none")
    with pytest.raises(Misconfigured, match=r"^holdout is 0\.9; allowed: 0\.01 to 0\.5$"):
        project.train(replayed, events.with_columns(is_fraud=0), holdout=0.9)
    with pytest.raises(Misconfigured, match=r"^the labels have no column is_fraud.*with label_column$"):
        project.train(replayed)
    with pytest.raises(Misconfigured, match=r"^no label is known by \d+ ms: move as_of later or lower label_delay$"):
        project.train(replayed, events.head(3).with_columns(is_fraud=0), as_of="2018-01-01")


def test_entities_and_features_that_there_are_not_are_named(project: millstream.Project) -> None:
    with pytest.raises(Misconfigured, match=r"^row 1: customer_id is '8', and must be a whole number$"):
        project.online_features([{"customer_id": 7}, {"customer_id": "8"}])
    with pytest.raises(Misconfigured, match=r"^row 0: 'age' is no join key; join keys are: customer_id, terminal_id$"):
        project.online_features([{"age": 7}])
    with pytest.raises(Misconfigured, match=r"no entity is given; join keys are: customer_id, terminal_id$"):
        project.online_features([])
    with pytest.raises(Misconfigured, match=r"named .*age.*; there are: customer_activity__"):
        project.online_features([{"customer_id": 7}], ["age"])
