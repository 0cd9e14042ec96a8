"""From replayed features to a promoted model by the commands, on the reference feature repo and a real broker."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from millstream.adapters.feast.repo import load_declaration
from millstream.adapters.kafka.promotions import latest
from millstream.adapters.kafka.topics import create_topics
from millstream.app.training import longest_window_ms
from millstream.app.training_data import read_features, with_labels
from millstream.cli import program
from millstream.cli.models import metric_title
from millstream.cli.train import duration_ms
from millstream.core.batch import Batch
from millstream.errors import Misconfigured, Refused
from millstream.settings import Settings
from millstream.stages.score.scorer import Champion
from millstream.topology import MODELS, SCHEMAS, Topic

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def run():
    """Run a command of the ``millstream`` program; errors made on purpose come out as they are."""
    app = program()

    def invoke(*words: str) -> str:
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    return invoke


@pytest.fixture
def replayed(tmp_path):
    """What a replay of 80 days would have written, and the truth about it."""
    random = np.random.default_rng(1)
    rows = 6000
    service = load_declaration(Settings()).service
    amount = random.uniform(1, 250, rows)
    columns = {name: random.integers(0, 30, rows).astype(float) for name, _ in service.features}
    columns["transaction_context__paid_amount"] = amount
    folder = tmp_path / "replayed"
    folder.mkdir()
    times = np.sort(random.integers(0, 80 * DAY_MS, rows))
    keys = {"transaction_id": np.arange(rows), "customer_id": random.integers(0, 50, rows)}
    frame = pl.DataFrame({**keys, "event_time_ms": times, **columns})
    frame.with_columns(pl.col("event_time_ms").cast(pl.Datetime("ms", "UTC")).dt.cast_time_unit("us")).write_parquet(
        folder / "scored.parquet"
    )
    pl.DataFrame({"reason": ["range"]}).write_parquet(folder / "dead-letters.parquet")
    truth = pl.DataFrame({"transaction_id": np.arange(rows, dtype=np.int32), "is_fraud": amount > 200})
    truth.sample(fraction=1, shuffle=True, seed=1).write_parquet(tmp_path / "labels.parquet")
    return folder, tmp_path / "labels.parquet"


@pytest.mark.kafka
def test_train_promote_and_roll_back(run, replayed, kafka, tmp_path, monkeypatch):
    topics = [Topic(name, "key", "train", ("score",), "compact", 1) for name in (MODELS, SCHEMAS)]
    create_topics(kafka.kafka, topics, partitions=1, replication=1)
    monkeypatch.setenv("MILLSTREAM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("MILLSTREAM_KAFKA_BOOTSTRAP_SERVERS", kafka.kafka["bootstrap.servers"])
    monkeypatch.setenv("MILLSTREAM_REDIS_URL", "redis://127.0.0.1:1")
    features, labels = map(str, replayed)

    told = run("train", features, "--labels", labels, "--rounds", "20", "--promote")
    assert "AUC" in told
    assert "precision@100 per day by customer_id" in told.replace("\n", "")
    first = latest(kafka.kafka, "fraud")
    assert first is not None
    champion = Champion.load(first, load_declaration(Settings()).service)
    cheap_and_dear = {name: np.zeros(2) for name in champion.model.features}
    cheap_and_dear["transaction_context__paid_amount"] = np.array([10.0, 240.0])
    cheap, dear = champion.predict(Batch(2, cheap_and_dear))
    assert cheap < champion.manifest.threshold <= dear  # a score at the threshold is positive
    assert champion.manifest.training.from_ms >= 30 * DAY_MS  # the longest window of the feature repo

    run("train", features, "--labels", labels, "--rounds", "5", "--threshold", "0.5", "--as-of", "1970-03-15")
    assert latest(kafka.kafka, "fraud") == first  # registered, not promoted
    run("models", "promote", "2")
    second = latest(kafka.kafka, "fraud")
    assert second.version == 2
    assert Champion.load(second, load_declaration(Settings()).service).manifest.threshold == 0.5
    run("models", "rollback")
    assert latest(kafka.kafka, "fraud") == first

    listed = json.loads(run("models", "list", "--json"))
    assert [(each["version"], each["champion"]) for each in listed["versions"]] == [(1, True), (2, False)]
    assert listed["previous"] == 2
    assert listed["versions"][0]["metrics"]["auc"] > 0.9
    assert json.loads(run("models", "show", "2", "--json"))["training"]["as_of_ms"] == 73 * DAY_MS
    assert "reads feature service 'fraud'" in run("models", "show", "1")
    assert "fraud" in run("models", "list", "--name", "fraud")
    with pytest.raises(Refused, match="no version 9"):
        run("models", "promote", "9")


@pytest.mark.kafka
def test_without_an_earlier_champion_there_is_no_way_back(run, kafka, tmp_path, monkeypatch):
    monkeypatch.setenv("MILLSTREAM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("MILLSTREAM_KAFKA_BOOTSTRAP_SERVERS", kafka.kafka["bootstrap.servers"])
    monkeypatch.setenv("MILLSTREAM_REDIS_URL", "redis://127.0.0.1:1")
    with pytest.raises(Misconfigured, match="no earlier champion"):
        run("models", "rollback", "--name", "nobody")


def test_of_several_labels_the_last_one_known_in_time_counts():
    labels = pl.DataFrame(
        {
            "event_id": ["1", "1", "2", "3", "3", "4"],
            "label": [0.0, 1.0, 1.0, 1.0, 0.0, 1.0],
            "known_at_ms": [5, 9, 3, 2, 4, 50],
            "kind": ["new", "correction", "new", "new", "retraction", "new"],
        }
    )
    features = pl.DataFrame({"transaction_id": [4, 3, 2, 1, 0]})

    def known(as_of_ms):
        joined = with_labels(
            features, labels.sample(fraction=1, shuffle=True, seed=2), "transaction_id", "label", as_of_ms
        )
        return joined["label"].to_list()

    assert known(8) == [None, None, 1.0, 0.0, None]
    assert known(9) == [None, None, 1.0, 1.0, None]
    assert known(3) == [None, 1.0, 1.0, None, None]
    assert known(None) == [1.0, None, 1.0, 1.0, None]


def test_a_label_known_after_the_horizon_does_not_count_as_in_the_join():
    labels = pl.DataFrame(
        {
            "event_id": ["1", "1", "2", "3", "3", "4"],
            "label": [0.0, 1.0, 1.0, 1.0, 1.0, 1.0],
            "known_at_ms": [110, 211, 200, 210, 211, None],
            "kind": ["new", "correction", "new", "new", "retraction", "new"],
        }
    )
    features = pl.DataFrame({"transaction_id": [1, 2, 3, 4], "t": [100, 99, 110, 0]})
    noted: list[str] = []
    joined = with_labels(features, labels, "transaction_id", "label", None, (), noted.append, ("t", 100))
    # A correction and a retraction that come too late change nothing; a label at the horizon counts.
    assert joined["label"].to_list() == [0.0, None, 1.0, 1.0]
    assert len(noted) == 1
    assert noted[0].startswith("3 of 6 labels are left out: they became known more than")


def test_what_labels_lack_is_said(tmp_path):
    features, labels = pl.DataFrame({"id": [1]}), pl.DataFrame({"id": [1], "bad": [1]})
    with pytest.raises(Misconfigured, match=r"no column label; there are: id, bad"):
        with_labels(features, labels, "id", "label", None)
    with pytest.raises(Misconfigured, match="millstream replay"):
        read_features(tmp_path)


def test_words_for_numbers():
    assert [duration_ms(text) for text in ("7d", "12h", "30m", "45s")] == [7 * DAY_MS, 43_200_000, 1_800_000, 45_000]
    assert metric_title("card_precision_at_100", "card") == "precision@100 per day by card"
    assert longest_window_ms(load_declaration(Settings())) == 30 * DAY_MS
