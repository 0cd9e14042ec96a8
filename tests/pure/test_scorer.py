"""Champion, baseline and the fall from one to the other, on meters rather than cards."""

from dataclasses import replace

import lightgbm
import numpy as np
import pytest

from fakes_models import FEATURES, a_body, a_declaration, a_manifest, a_version
from millstream.adapters.models.lightgbm_model import TextModel
from millstream.core.batch import Batch
from millstream.core.models.manifest import define
from millstream.errors import Misconfigured, Refused
from millstream.stages.score.baseline import Baseline
from millstream.stages.score.scorer import Champion, Scorer, probabilities

DECLARATION = a_declaration()
SERVICE = DECLARATION.service


def a_batch(count: int, seed: int = 5) -> Batch:
    random = np.random.default_rng(seed)
    mean = random.uniform(0, 10, count)
    mean[random.random(count) < 0.2] = np.nan
    columns = {
        "meter_id": np.array([f"m{i}" for i in range(count)], dtype=object),
        "load__count_1h": random.integers(1, 9, count),  # not in the model's order
        "load__mean_1h": mean,
    }
    return Batch(count, columns)


def by_lightgbm(body: str, batch: Batch) -> np.ndarray:
    matrix = np.column_stack([batch.as_floats(name) for name, _ in FEATURES])
    return lightgbm.Booster(model_str=body).predict(matrix, num_threads=1)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 1000])
def test_scores_are_lightgbms_bit_for_bit(count):
    batch = a_batch(count)
    scores = Champion.load(a_version(), SERVICE).predict(batch)
    assert (scores == by_lightgbm(a_body(), batch)).all()


def test_no_rows_no_scores():
    assert Champion.load(a_version(), SERVICE).predict(a_batch(0)).shape == (0,)
    assert Scorer(SERVICE).score(a_batch(0)).columns["decision"].shape == (0,)


def test_nulls_and_nan_are_both_missing():
    mean = np.array([7.0, np.nan])
    counts = np.array([3, 3])
    champion = Champion.load(a_version(), SERVICE)
    nulls = Batch(
        2,
        {"load__mean_1h": np.array([7.0, 123.0]), "load__count_1h": counts},
        {"load__mean_1h": np.array([False, True])},
    )
    nans = Batch(2, {"load__mean_1h": mean, "load__count_1h": counts})
    scores = champion.predict(nulls)
    assert (scores == champion.predict(nans)).all()
    assert scores[0] != scores[1]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"sha256": "00"}, "announced was 00"),
        ({"body": a_body(seed=3)}, "manifest has"),
        ({"manifest": "{}"}, "format None"),
    ],
)
def test_a_damaged_model_is_refused(changed, says):
    with pytest.raises(Refused, match=says):
        Champion.load(replace(a_version(), **changed), SERVICE)


def test_a_model_that_does_not_fit_is_refused_with_every_difference():
    other = replace(SERVICE, name="heaters", features=(FEATURES[0], ("load__max_1h", "float64")))
    with pytest.raises(Refused, match=r"version 1.*'heaters'.*load__count_1h.*millstream train"):
        Champion.load(a_version(), other)


def test_a_feature_that_changed_its_meaning_is_refused():
    definitions = define(DECLARATION) | {"load__count_1h": "something else"}
    with pytest.raises(Refused, match="something else"):
        Champion.load(a_version(), SERVICE, definitions=definitions)


@pytest.mark.parametrize("body", ["", "hello", "tree\nnonsense\n"])
def test_text_that_is_no_model_is_refused(body):
    with pytest.raises(Refused, match="LightGBM"):
        TextModel(body)


def test_a_body_that_reads_other_features_than_its_manifest_is_refused():
    body = a_body().replace("load__mean_1h", "load__mean_2h")
    with pytest.raises(Refused, match="load__mean_2h"):
        Champion.load(a_version(body=body), SERVICE)


@pytest.mark.parametrize(
    "columns", [np.zeros((3, 4)), np.zeros(2), np.zeros((2, 4), dtype=np.float32), np.zeros((4, 2)).T]
)
def test_a_matrix_the_library_would_misread_never_reaches_it(columns):
    with pytest.raises(ValueError, match=r"float64 of shape|contiguous"):
        TextModel(a_body()).predict(columns)


def test_champion_answers_with_its_own_threshold():
    answer = Scorer(SERVICE, Champion.load(a_version(threshold=0.3), SERVICE)).score(a_batch(200)).columns
    assert set(answer["arm"]) == {"champion"}
    assert set(answer["model"]) == {"meter-faults"}
    assert answer["model_version"].tolist() == [1] * 200
    assert (answer["decision"] == np.where(answer["score"] >= 0.3, "inspect", "leave")).all()
    assert set(answer["decision"]) == {"inspect", "leave"}


def test_without_a_threshold_in_the_manifest_the_services_holds():
    answer = Scorer(SERVICE, Champion.load(a_version(threshold=None), SERVICE)).score(a_batch(200)).columns
    assert (answer["decision"] == np.where(answer["score"] >= 0.5, "inspect", "leave")).all()


def test_the_rule_answers_without_a_model():
    batch = a_batch(50)
    answer = Scorer(replace(SERVICE, tags={})).score(batch).columns
    high = batch.columns["load__mean_1h"] > 5
    assert answer["score"].tolist() == np.where(high, 0.9, 0.1).tolist()
    assert set(answer["arm"]) == set(answer["model"]) == {"baseline"}
    assert answer["model_version"].tolist() == [0] * 50
    assert answer["decision"].tolist() == np.where(high, "positive", "negative").tolist()


def test_the_rule_answers_for_a_batch_the_model_fails_on_and_only_for_that(caplog):
    scorer = Scorer(SERVICE, Champion.load(a_version(), SERVICE))
    broken = a_batch(3).with_columns({"load__count_1h": np.array(["a", "b", "c"], dtype=object)})
    assert set(scorer.score(broken).columns["arm"]) == {"baseline"}
    assert scorer.failures == 1
    assert "load__count_1h" in caplog.text
    assert set(scorer.score(a_batch(3)).columns["arm"]) == {"champion"}


@pytest.mark.parametrize(
    ("sql", "scores"),
    [
        ("0.25", [0.25, 0.25, 0.25]),
        ("x", [1.0, 0.0, 0.0]),
        ("CASE WHEN word = 'bad' THEN 1 ELSE 0 END", [1.0, 0.0, 0.0]),
        ("COALESCE(x, 0.5) * 0.1", [0.7, 0.0, 0.05]),
        ("CASE WHEN flag AND n > 1 THEN 0.5 END", [0.0, 0.5, 0.0]),
    ],
)
def test_rules(sql, scores):
    columns = {
        "x": np.array([7.0, -3.0, np.nan]),
        "n": np.array([1, 2, 3]),
        "flag": np.array([True, True, False]),
        "word": np.array(["bad", "", "good"], dtype=object),
    }
    batch = Batch(3, columns, {"word": np.array([False, True, False])})
    assert Baseline(replace(SERVICE, baseline=sql)).score(batch).tolist() == pytest.approx(scores)


def test_a_masked_value_is_null_to_the_rule():
    batch = Batch(2, {"n": np.array([9, 9])}, {"n": np.array([False, True])})
    assert Baseline(replace(SERVICE, baseline="COALESCE(n, 0) / 9")).score(batch).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("sql", "says"), [("x +", "x \\+"), ("y", "no column 'y'"), ("word * 2 > x", "word")])
def test_a_rule_that_cannot_work_stops_the_start(sql, says):
    batch = Batch(1, {"x": np.array([1.0]), "word": np.array(["a"], dtype=object)})
    with pytest.raises(Misconfigured, match=says):
        Baseline(replace(SERVICE, baseline=sql)).score(batch)


def test_a_rule_that_fails_on_a_value_does_not_stop_the_stream():
    rule = Baseline(replace(SERVICE, baseline="CAST(word AS DOUBLE)"))
    good, bad = (Batch(1, {"word": np.array([word], dtype=object)}) for word in ("0.5", "half"))
    assert rule.score(good).tolist() == [0.5]
    assert rule.score(bad).tolist() == [0.0]
    assert rule.failures == 1


def a_body_with_leaf(value: str, objective: str = "binary sigmoid:1") -> str:
    """Return a model whose answer for mean loads above 5 is a leaf of this value, and sigmoid(0) below."""
    tree = (
        "Tree=0\nnum_leaves=2\nnum_cat=0\nsplit_feature=0\nsplit_gain=1\nthreshold=5\ndecision_type=8\n"
        f"left_child=-1\nright_child=-2\nleaf_value=0 {value}\nleaf_weight=1 1\nleaf_count=1 1\n"
        "internal_value=0\ninternal_weight=0\ninternal_count=2\nis_linear=0\nshrinkage=1\n\n\n"
    )
    head = (
        "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\nmax_feature_idx=1\n"
        f"objective={objective}\nfeature_names={' '.join(name for name, _ in FEATURES)}\n"
        f"feature_infos=[0:10] [0:10]\ntree_sizes={len(tree)}\n\n"
    )
    return f"{head}{tree}end of trees\n"


LOADS = Batch(3, {"load__mean_1h": np.array([1.0, 9.0, 2.0]), "load__count_1h": np.array([1, 1, 1])})


def test_a_row_whose_score_is_no_probability_is_answered_by_the_rule_and_the_others_by_the_champion(caplog):
    scorer = Scorer(SERVICE, Champion.load(a_version(body=a_body_with_leaf("nan")), SERVICE))
    answer = scorer.score(LOADS)
    assert answer.columns["score"].tolist() == [0.5, 0.9, 0.5]
    assert answer.columns["arm"].tolist() == ["champion", "baseline", "champion"]
    assert answer.columns["model"].tolist() == ["meter-faults", "baseline", "meter-faults"]
    assert answer.columns["model_version"].tolist() == [1, 0, 1]
    assert answer.columns["threshold"].tolist() == [0.25, 0.5, 0.25]
    assert answer.nulls["champion_score"].tolist() == [False, True, False]
    assert scorer.failures == 1
    assert "failed on 1 events" in caplog.text
    alone = scorer.score(LOADS.take(np.array([1])))
    assert [repr(values[0]) for values in alone.columns.values()] == [repr(v[1]) for v in answer.columns.values()]


def test_the_rule_runs_on_the_rows_that_it_answers_only(monkeypatch):
    scorer = Scorer(SERVICE, Champion.load(a_version(body=a_body_with_leaf("nan")), SERVICE))
    asked = []
    rule = scorer.baseline.score
    monkeypatch.setattr(scorer.baseline, "score", lambda batch: asked.append(batch.length) or rule(batch))
    scorer.score(LOADS)
    scorer.score(LOADS.take(np.array([0, 2])))
    scorer.champion = None
    scorer.score(LOADS)
    assert asked == [1, 3]


def test_what_is_no_probability_is_no_score():
    given = np.array([0.0, 1.0, 0.5, 37.5, -0.25, 1.0000001, np.inf, -np.inf, np.nan])
    assert np.isnan(probabilities(given)).tolist() == [False] * 3 + [True] * 6


@pytest.mark.parametrize("objective", ["regression", "regression_l1", "poisson", "lambdarank", "cross_entropy_lambda"])
def test_a_model_that_gives_no_probability_is_refused_by_its_objective(objective):
    body = a_body_with_leaf("0.5", objective)
    with pytest.raises(Refused, match=rf"version 1 is refused: its objective is {objective}, .*allowed is binary"):
        Champion.load(a_version(body=body), SERVICE)


def test_a_model_without_an_objective_is_refused():
    body = a_body_with_leaf("0.5").replace("objective=binary sigmoid:1\n", "")
    with pytest.raises(Refused, match="its objective is not stated"):
        Champion.load(a_version(body=body), SERVICE)


def test_a_refusal_counts_the_features_that_differ_and_names_a_few():
    many = tuple((f"load__{i:03}", "float64") for i in range(60))
    manifest = replace(a_version(), manifest=a_manifest(a_body(), features=many, definitions={}).to_json())
    with pytest.raises(Refused) as refused:
        Champion.load(manifest, SERVICE)
    assert "60 of its 60 features are not in the service: 'load__000', 'load__001', 'load__002' and 57 more" in str(
        refused.value
    )
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("sql", ["x - AVG(x)", "CASE WHEN AVG(x) > 0.9 THEN 1 ELSE 0 END", "MAX(x)"])
def test_a_rule_over_several_rows_is_refused(sql):
    batch = Batch(2, {"x": np.array([1.0, 0.25])})
    with pytest.raises(Misconfigured, match="depends on other rows"):
        Baseline(replace(SERVICE, baseline=sql)).score(batch)


def test_a_row_that_the_rule_fails_on_does_not_change_its_neighbours():
    rule = Baseline(replace(SERVICE, baseline="CAST(word AS DOUBLE)"))
    words = np.array(["0.5", "half", "0.25"], dtype=object)
    assert rule.score(Batch(3, {"word": words})).tolist() == [0.5, 0.0, 0.25]
    assert rule.failures == 1
