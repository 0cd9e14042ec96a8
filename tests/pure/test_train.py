"""Splits that never look ahead, and training end to end on a small invented history of meters."""

from __future__ import annotations

from dataclasses import replace

import lightgbm
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes_models import a_declaration
from millstream.adapters.reports.importance_plot import gains
from millstream.cli.models import metric_title
from millstream.core.metrics import evaluate
from millstream.core.models.manifest import Manifest, define, sha256
from millstream.errors import Misconfigured
from millstream.ports import ModelVersion
from millstream.stages.retrain.fit import Growth
from millstream.stages.retrain.split import Window, split
from millstream.stages.retrain.train import TrainSpec, train
from millstream.stages.score.scorer import Champion

DAY_MS = 86_400_000
DECLARATION = a_declaration()
SPEC = TrainSpec(
    "meter-faults",
    DECLARATION.service,
    "event_time_ms",
    "meter_id",
    "faulty",
    window=Window(label_delay_ms=DAY_MS, warm_up_ms=2 * DAY_MS),
    growth=Growth(rounds=12, patience=4, leaves=4, min_rows_in_leaf=20),
    precision_k=5,
    definitions=define(DECLARATION),
)


def history(rows: int = 4000, days: int = 40, seed: int = 1) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    mean = random.uniform(0, 10, rows)
    return pl.DataFrame(
        {
            "event_id": np.arange(rows),
            "event_time_ms": np.sort(random.integers(0, days * DAY_MS, rows)),
            "meter_id": [f"m{i}" for i in random.integers(0, 30, rows)],
            "load__mean_1h": mean,
            "load__count_1h": random.integers(1, 9, rows),
            "faulty": (mean + random.normal(0, 1, rows) > 8).astype(np.int8),
        }
    ).with_columns(pl.when(pl.col("event_id") % 10 == 0).then(None).otherwise("load__mean_1h").alias("load__mean_1h"))


@given(
    st.lists(st.integers(0, 100), min_size=1, max_size=60),
    st.integers(0, 120),
    st.integers(0, 30),
    st.integers(0, 30),
    st.integers(0, 15),
)
def test_no_part_sees_past_its_own_moment(days, as_of, delay, warm_up, gap):
    times = np.array(days) * DAY_MS
    window = Window(
        as_of_ms=as_of * DAY_MS,
        label_delay_ms=delay * DAY_MS,
        warm_up_ms=warm_up * DAY_MS,
        gap_ms=gap * DAY_MS,
        validation_share=0.2,
        holdout_share=0.2,
    )
    try:
        parts = split(times, window)
    except Misconfigured:
        return
    used = parts.train | parts.validation | parts.holdout
    assert (times[used] + delay * DAY_MS <= as_of * DAY_MS).all()
    assert (times[used] >= times.min() + warm_up * DAY_MS).all()
    assert times[parts.train].max() < times[parts.validation].min()
    assert times[parts.validation].max() + gap * DAY_MS < times[parts.holdout].min()


def test_shares_are_of_the_usable_time():
    times = np.arange(100) * DAY_MS
    window = Window(label_delay_ms=9 * DAY_MS, warm_up_ms=10 * DAY_MS, gap_ms=0)
    parts = split(times, window)  # as of day 99: labels of days 10 to 90 are usable, 81 days of them
    assert {name: int(mask.sum()) for name, mask in parts.parts().items()} == {
        "train": 65,
        "validation": 8,
        "holdout": 8,
    }
    assert split(times, replace(window, gap_ms=5 * DAY_MS)).validation.sum() == 8
    later = split(times, replace(window, from_ms=50 * DAY_MS, to_ms=70 * DAY_MS))
    used = later.train | later.validation | later.holdout
    assert (times[used].min(), times[used].max()) == (50 * DAY_MS, 69 * DAY_MS)


def test_a_labels_own_time_wins_over_the_delay():
    times = np.arange(30) * DAY_MS
    known = np.full(30, 31 * DAY_MS)
    known[:20] = 1
    parts = split(times, Window(as_of_ms=30 * DAY_MS, warm_up_ms=0, gap_ms=0, label_delay_ms=0), known)
    assert (parts.train | parts.validation | parts.holdout).tolist() == [True] * 20 + [False] * 10


@pytest.mark.parametrize(
    ("window", "says"),
    [
        (Window(as_of_ms=0), "--as-of"),
        (Window(warm_up_ms=99 * DAY_MS), "--warm-up"),
        (Window(to_ms=1, warm_up_ms=0), "--to"),
        (Window(warm_up_ms=0, gap_ms=90 * DAY_MS), "--gap"),
    ],
)
def test_what_took_all_rows_is_said(window, says):
    with pytest.raises(Misconfigured, match=says):
        split(np.arange(1, 90) * DAY_MS, window)
    with pytest.raises(Misconfigured, match="no events"):
        split(np.zeros(0, dtype=np.int64), window)


def test_a_trained_model_is_what_its_manifest_says():
    data = history()
    seen = []
    trained = train(data, SPEC, created_at_ms=77, progress=seen.append)
    manifest = trained.manifest
    offered = ModelVersion("meter-faults", 1, manifest.to_json(), trained.body, sha256(trained.body))
    Champion.load(offered, SPEC.service, definitions=define(DECLARATION))  # fits what is running
    assert Manifest.from_json(offered.manifest) == manifest
    assert manifest.created_at_ms == 77
    assert manifest.params["trees"] == trained.body.count("\nTree=")
    assert [each.trees for each in seen] == list(range(1, len(seen) + 1))
    assert tuple(each.value for each in seen) == trained.curves["validation_average_precision"]
    assert set(gains(trained.body)) <= {"load__mean_1h", "load__count_1h"}

    times = data["event_time_ms"].to_numpy()
    holdout = split(times, SPEC.window).holdout
    rows = data.filter(pl.Series(holdout))
    matrix = rows.select("load__mean_1h", "load__count_1h").cast(pl.Float64).to_numpy()
    scores = lightgbm.Booster(model_str=trained.body).predict(matrix, num_threads=1)
    expected = evaluate(
        rows["faulty"].to_numpy() == 1, scores, rows["meter_id"].to_numpy(), rows["event_time_ms"].to_numpy(), 5
    )
    assert manifest.metrics == trained.metrics == expected
    assert manifest.metrics["average_precision"] > 0.6
    assert manifest.training.rows["holdout"] == holdout.sum()
    assert manifest.training.to_ms < rows["event_time_ms"].min() - DAY_MS
    assert manifest.profile["load__mean_1h"].null_share == pytest.approx(0.1, abs=0.02)
    assert 0 < manifest.threshold < 1


def test_the_same_history_in_any_order_and_on_more_threads_gives_the_same_trees():
    data = history()
    one = train(data, SPEC, 0)
    two = train(
        data.sample(fraction=1, shuffle=True, seed=3).sort("event_time_ms"),
        replace(SPEC, growth=replace(SPEC.growth, threads=2)),
        0,
    )
    assert one.manifest.training == two.manifest.training
    assert one.body.replace("[num_threads: 1]", "") == two.body.replace("[num_threads: 2]", "")


def test_labels_not_yet_known_change_nothing():
    data = history()
    as_of = 30 * DAY_MS
    spec = replace(SPEC, window=replace(SPEC.window, as_of_ms=as_of))
    unknown = pl.col("event_time_ms") + DAY_MS > as_of
    flipped = data.with_columns(pl.when(unknown).then(1 - pl.col("faulty")).otherwise("faulty").alias("faulty"))
    assert train(data, spec, 0) == train(flipped, spec, 0)
    known = pl.col("event_time_ms") + DAY_MS <= as_of
    flipped = data.with_columns(pl.when(known).then(1 - pl.col("faulty")).otherwise("faulty").alias("faulty"))
    assert train(data, spec, 0).body != train(flipped, spec, 0).body


def test_a_given_threshold_holds():
    assert train(history(), replace(SPEC, threshold=0.125), 0).manifest.threshold == 0.125


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (history().drop("load__count_1h"), "no column load__count_1h.*millstream replay"),
        (history().with_columns(pl.col("load__count_1h").cast(pl.String)), "load__count_1h is String"),
        (history().with_columns(pl.lit(None, pl.Int8).alias("faulty")), "no event has a label"),
        (history().with_columns(pl.lit(0).alias("faulty")), "labels of the train part are the same"),
    ],
)
def test_data_that_cannot_be_learnt_from_is_named(data, says):
    with pytest.raises(Misconfigured, match=says):
        train(data, SPEC, 0)


@pytest.mark.parametrize(
    "labels",
    [
        pl.Series("faulty", [0, 1, 37]),
        pl.Series("faulty", [0.0, 0.5, 1.0]),
        pl.Series("faulty", ["0", "yes", "1"]),
        pl.Series("faulty", [-1, 0, 1]),
    ],
)
def test_labels_of_a_classifier_are_0_and_1(labels: pl.Series) -> None:
    """Minutes of delay are no label of two classes, and neither is "not 0"."""
    data = history(300).with_columns(labels.sample(300, with_replacement=True, seed=1))
    with pytest.raises(Misconfigured, match=r"'faulty' is no binary label: .* neither 0, 1, true nor false, such as"):
        train(data, SPEC, 0)


def test_labels_of_two_classes_may_be_of_any_type() -> None:
    data = history()
    wanted = train(data, SPEC, 0).metrics
    for labels in (
        data["faulty"].cast(pl.Boolean),
        data["faulty"].cast(pl.Float64),
        data["faulty"].cast(pl.Boolean).cast(pl.String),
    ):
        assert train(data.with_columns(labels), SPEC, 0).metrics == wanted


def test_a_label_without_a_known_time_is_known_after_the_delay() -> None:
    data = history()
    known = (pl.col("event_time_ms") + DAY_MS).alias("known_at_ms")
    some = pl.when(pl.col("event_id") % 2 == 0).then(pl.col("known_at_ms")).alias("known_at_ms")
    spec = replace(SPEC, label_known_at="known_at_ms")
    wanted = train(data, SPEC, 0).manifest.training
    assert train(data.with_columns(known).with_columns(some), spec, 0).manifest.training == wanted


INFINITE = float("inf")


@pytest.mark.parametrize(
    "column",
    [
        pl.lit(None, pl.Float64),
        pl.lit(None),
        pl.lit(3.0),
        pl.when(pl.col("event_id") % 7 == 0).then(INFINITE).otherwise("load__mean_1h"),
        pl.when(pl.col("event_id") % 7 == 0).then(-INFINITE).otherwise("load__mean_1h"),
        pl.lit(INFINITE),
        pl.col("load__mean_1h") * 1e307,
    ],
    ids=["null", "untyped null", "constant", "some infinite", "some minus infinite", "infinite", "beyond a double"],
)
def test_a_feature_of_any_values_can_be_trained_on_and_its_manifest_read(column):
    trained = train(history(2500).with_columns(column.alias("load__mean_1h")), SPEC, 1)
    text = trained.manifest.to_json()
    assert Manifest.from_json(text).reference == trained.manifest.reference
    assert Manifest.from_json(text).profile == trained.manifest.profile
    Champion.load(ModelVersion("meter-faults", 1, text, trained.body, sha256(trained.body)), DECLARATION.service)


def test_a_holdout_part_of_one_class_leaves_out_what_is_not_defined_there():
    early = pl.when(pl.col("event_time_ms") > 34 * DAY_MS).then(0).otherwise("faulty").alias("faulty")
    assert set(train(history().with_columns(early), SPEC, 1).metrics) == {"log_loss", "brier", "card_precision_at_5"}


@pytest.mark.parametrize(("rows", "says"), [(0, "no event has a label"), (1, "no label is known by")])
def test_too_few_rows_are_refused_in_a_sentence(rows, says):
    with pytest.raises(Misconfigured, match=says):
        train(history().head(rows), SPEC, 1)


def test_precision_among_more_than_there_are_says_of_how_many():
    assert metric_title("card_precision_at_100", "carrier", 16.0) == (
        "precision@100 per day by carrier, of 16 a day: at most 0.16"
    )
    assert metric_title("card_precision_at_100", "customer_id", 4000.0) == "precision@100 per day by customer_id"
    assert train(history(), SPEC, 1).groups_a_day == pytest.approx(29, abs=2)
