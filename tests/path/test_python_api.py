"""The Python API: a table of events through the stages of a project, with no server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import millstream
from millstream.errors import Misconfigured
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
    with pytest.raises(Misconfigured, match=r"is_fraud.*label_column="none""):
        project.replay(events)


def test_a_wrong_setting_is_refused_by_name() -> None:
    with pytest.raises(Misconfigured, match="MILLSTREAM_LATE_POLICY"):
        millstream.open(late_policy="perhaps")


def test_the_package_imports_nothing_heavy() -> None:
    heavy = ("numba", "numpy", "feast", "mlflow", "lightgbm", "polars", "river", "confluent_kafka", "pydantic")
    code = f"import millstream, sys; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_folder_is_opened_by_name_or_from_below(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"is no project.*millstream new"):
        millstream.open(tmp_path)
    assert millstream.open("tests").name == "millstream_cards"
