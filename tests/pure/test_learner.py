"""The learner: the same after N examples however they came, and linear models as columns equal to River's rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from river import compose, drift, ensemble, forest, linear_model, naive_bayes, optim, preprocessing, tree

from millstream.adapters.models.river_model import OnlineScorer, floats, linear, rows
from millstream.adapters.models.river_pipelines import CHAMPION_LOGIT, CHAMPION_SCORE, OnlineModel, declare
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.schema import Field, Schema
from millstream.core.batch import Batch
from millstream.core.prequential import Prequential
from millstream.errors import Misconfigured, Refused, Stop
from millstream.runtime.dead_letters import DeadLetterLimit
from millstream.runtime.log.memory_log import MemoryBroker, MemoryLog
from millstream.runtime.log.records import Output
from millstream.runtime.loop import LoopLimits, StageLoop
from millstream.runtime.observer import Unobserved
from millstream.stages.learn.learner import Learner
from millstream.stages.learn.stage import LearnStage
from millstream.stages.validate.step import Validate
from millstream.topology import EXAMPLES, LEARN, SNAPSHOTS

KEY = b"sixteen bytes or more"
FEATURES = ("a", "b", "c", CHAMPION_SCORE)

Make = Callable[[], Any]


def _eager_hat() -> Any:
    detector = drift.ADWIN(delta=0.2, clock=4, grace_period=2)
    return tree.HoeffdingAdaptiveTreeClassifier(
        grace_period=15, delta=0.3, tau=0.4, drift_window_threshold=5, drift_detector=detector, seed=3
    )


PIPELINES: dict[str, Make] = {
    "logistic": lambda: preprocessing.StandardScaler() | linear_model.LogisticRegression(),
    "logistic-adam": lambda: (
        preprocessing.StandardScaler() | linear_model.LogisticRegression(optimizer=optim.Adam(0.05), l2=0.01)
    ),
    "logistic-l1": lambda: preprocessing.MinMaxScaler() | linear_model.LogisticRegression(l1=0.01),
    "passive-aggressive": lambda: preprocessing.MinMaxScaler() | linear_model.PAClassifier(C=0.1),
    "alma": lambda: preprocessing.StandardScaler(with_std=False) | linear_model.ALMAClassifier(),
    "perceptron": linear_model.Perceptron,
    "bagging": lambda: (
        preprocessing.StandardScaler()
        | ensemble.BaggingClassifier(linear_model.LogisticRegression(), n_models=3, seed=1)
    ),
    "adaptive-tree": _eager_hat,
    "adaptive-forest": lambda: forest.ARFClassifier(n_models=2, grace_period=10, delta=0.3, tau=0.4, seed=1),
    "mondrian-forest": lambda: forest.AMFClassifier(n_estimators=2, seed=1),
    "bayes": naive_bayes.GaussianNB,
}
LINEAR = ("logistic", "logistic-adam", "logistic-l1", "passive-aggressive", "alma", "perceptron")
LOGIT = (*FEATURES[:3], CHAMPION_LOGIT)
DECLARED = {name: declare("fraud", make(), LOGIT if "log" in name else FEATURES) for name, make in PIPELINES.items()}


def examples(count: int, seed: int, nulls: float = 0.05, scale: float = 1.0) -> Batch:
    """Return seeded examples whose positives move half way through; some values, labels and segments are null."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        name: np.where(rng.random(count) < nulls, np.nan, rng.normal(0, scale, count)) for name in FEATURES[:2]
    }
    columns["c"] = rng.integers(0, 3, count)
    columns[CHAMPION_SCORE] = np.where(rng.random(count) < nulls, np.nan, rng.random(count))
    side = np.where(np.arange(count) < count // 2, 1, -1)
    truth = side * np.nan_to_num(columns["a"]) + 0.3 * rng.normal(size=count) > 0
    columns["label"] = np.where(rng.random(count) < nulls, np.nan, truth * 1.0)
    columns["country"] = rng.choice(np.array(["de", "fr", "it", "es", "pt"], dtype=object), count)
    return Batch(count, columns, {"country": rng.random(count) < nulls})


def weights(learner: Learner) -> list[Any]:
    """Return weights and scaler state of a linear model, by segment."""
    held = []
    for segment in learner.segments:
        model = learner._models.by_segment[segment]
        steps = model.steps.values() if isinstance(model, compose.Pipeline) else [model]
        held.append([segment, [vars(step).get("means", 0) for step in steps], getattr(model, "weights", None)])
        held.append([getattr(step, "weights", getattr(step, "w", None)) for step in steps])
    return held


@pytest.mark.parametrize("name", PIPELINES)
@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_batches_restarts_and_replays_change_nothing(name: str, data: st.DataObject) -> None:
    bound = data.draw(st.sampled_from([None, 0, 2, 9]))
    declared = DECLARED[name] if bound is None else _divided(DECLARED[name], bound)
    count = data.draw(st.integers(1, 120))
    batch = examples(count, data.draw(st.integers(0, 2**16)))
    offsets = np.cumsum(np.random.default_rng(count).integers(1, 3, count))  # transactions leave holes
    probe = examples(40, 99)

    once = Learner(declared)
    scores = once.learn(batch, "label", "examples[0]", offsets).scores

    many, pieces, start = Learner(declared), [], 0
    for end in [*sorted(data.draw(st.lists(st.integers(0, count), max_size=5))), count]:
        again = data.draw(st.integers(0, start))  # a replay from before the snapshot
        learnt = many.learn(batch.take(np.arange(again, end)), "label", "examples[0]", offsets[again:end])
        assert not learnt.taught[: start - again].any()
        pieces.append(learnt.scores[start - again :])
        start = end
        snapshot, many = many.snapshot(KEY), Learner(declared)
        many.restore(snapshot, KEY)

    np.testing.assert_array_equal(np.concatenate(pieces), scores)
    np.testing.assert_array_equal(many.scorer().score(probe), once.scorer().score(probe))
    assert weights(many) == weights(once)
    assert (many.examples, many.offsets, many.figures()) == (once.examples, once.offsets, once.figures())
    assert [m.state() for m in many.metrics.values()] == [m.state() for m in once.metrics.values()]


def _divided(declared: OnlineModel, bound: int) -> OnlineModel:
    return OnlineModel(
        declared.name, declared.features, declared.pipeline, declared.fresh, declared.allowed, "country", bound
    )


@pytest.mark.parametrize("name", PIPELINES)
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(
    count=st.integers(0, 120),
    seed=st.integers(0, 2**16),
    scale=st.sampled_from([1e-3, 1.0, 50.0, 1e6]),
    nulls=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_columns_score_as_river_scores_rows(name: str, count: int, seed: int, scale: float, nulls: float) -> None:
    declared = DECLARED[name]
    learner, model = Learner(declared), declared.blank()
    batch = examples(count, seed, nulls, scale)
    learner.learn(batch, "label", "examples[0]", np.arange(count))
    for row, label in zip(rows(floats(batch, declared.features)), batch.columns["label"], strict=True):
        if not np.isnan(label):
            model.learn_one(row, bool(label))
    probe = examples(50, seed + 1, 0.1, scale)
    probe.columns["a"][0] = np.inf
    theirs = [model.predict_proba_one(row) for row in rows(floats(probe, declared.features))]
    scorer = OnlineScorer.load(learner.snapshot(KEY), declared, KEY)
    np.testing.assert_allclose(
        scorer.score(probe), [each.get(True, 0.0) if each else np.nan for each in theirs], rtol=0, atol=1e-12
    )
    if count > 20 and nulls < 1:
        assert scorer.vectorised == (name in LINEAR)


def test_what_is_not_linear_after_all_is_not_compiled() -> None:
    focal = linear_model.LogisticRegression(loss=optim.losses.Hinge())
    assert linear(focal, ("a",)) is not None
    assert linear(preprocessing.StandardScaler() | preprocessing.MinMaxScaler() | focal, ("a",)) is None
    assert linear(preprocessing.MinMaxScaler() | linear_model.LogisticRegression(), ("a",)) is None  # nothing seen yet
    assert linear(preprocessing.StandardScaler(window_size=7) | focal, ("a",)) is None
    assert linear(tree.HoeffdingTreeClassifier(), ("a",)) is None


def test_segments_are_bounded_and_the_rest_share_one_model() -> None:
    declared = _divided(DECLARED["logistic"], 2)
    batch = examples(300, 5, nulls=0.0)
    learner = Learner(declared)
    learner.learn(batch, "label", "examples[0]", np.arange(300))
    first = list(dict.fromkeys(batch.columns["country"].tolist()))
    assert learner.segments == (*first[:2], "")
    for segment, own in ((first[0], [first[0]]), (first[3], first[2:])):
        alone = Learner(DECLARED["logistic"])
        taken = batch.take(np.isin(batch.columns["country"].astype(str), own))
        alone.learn(taken, "label", "examples[0]", np.arange(taken.length))
        probe = examples(20, 6).with_columns({"country": np.array([segment] * 20, dtype=object)})
        np.testing.assert_array_equal(learner.scorer().score(probe), alone.scorer().score(probe))


def test_a_model_without_an_opinion_counts_nowhere_and_says_nan() -> None:
    learner = Learner(DECLARED["adaptive-tree"])
    batch = examples(1, 1, nulls=0.0)
    assert np.isnan(learner.scorer().score(batch)).all()
    assert np.isnan(learner.learn(batch, "label", "examples[0]", np.array([4])).scores).all()
    assert (learner.metrics["online"].silent, learner.metrics["champion"].examples) == (1, 1)
    assert learner.offsets == {"examples[0]": 5}


def test_prequential_figures_are_those_of_a_batch() -> None:
    from millstream.core.metrics import auc, brier, log_loss

    rng = np.random.default_rng(0)
    labels = rng.random(4000) < 0.2
    scores = np.clip(rng.beta(1, 3, 4000) + 0.2 * labels, 0, 1)
    scores[:3] = [0.0, 1.0, np.nan]
    metric = Prequential()
    metric.update(labels, scores)
    found, known = metric.figures(), ~np.isnan(scores)
    assert found["log_loss"] == pytest.approx(log_loss(labels[known], scores[known]), rel=1e-12)
    assert found["brier"] == pytest.approx(brier(labels[known], scores[known]), rel=1e-12)
    assert found["auc"] == pytest.approx(auc(labels[known], scores[known]), abs=2e-3)
    assert (metric.silent, metric.examples, metric.positives) == (1, 3999, int(labels[known].sum()))


def test_bad_columns_are_refused_before_anything_is_learnt() -> None:
    learner, batch = Learner(DECLARED["logistic"]), examples(9, 1)
    others = {
        "reads 'a'": batch.select(["b", "c", CHAMPION_SCORE, "label"]),
        "not a number": batch.with_columns({"a": np.array(["x"] * 9, dtype=object)}),
        "0, 1 or null": batch.with_columns({"label": np.full(9, 2.0)}),
    }
    for reason, other in others.items():
        with pytest.raises(Refused, match=reason):
            learner.learn(other, "label", "examples[0]", np.arange(9))
    assert (learner.examples, learner.offsets) == (0, {})


class Brittle(linear_model.LogisticRegression):
    """Fails on large values."""

    def learn_one(self, x: Any, y: Any, w: float = 1.0) -> None:
        if x.get("a", 0) > 1e9:
            raise ValueError("too large")
        super().learn_one(x, y, w)


def test_a_pipeline_that_fails_stops_the_learner_and_names_the_example() -> None:
    learner = Learner(declare("fraud", Brittle(), FEATURES))
    batch = examples(9, 1, nulls=0.0)
    batch.columns["a"][4] = 1e10
    with pytest.raises(Stop, match=r"examples\[0\] offset 104 .*too large"):
        learner.learn(batch, "label", "examples[0]", np.arange(100, 109))


class HalfWay(linear_model.LogisticRegression):
    """Learns an example and fails on it then: what it has taken in must not stay."""

    def learn_one(self, x: dict[str, float], y: bool, w: float = 1.0) -> None:
        super().learn_one(x, y, w)
        if x.get("a", 0.0) > 1e9:
            raise ValueError("too large")


@pytest.mark.parametrize("batch_records", [1, 4, 100])
def test_an_example_that_the_pipeline_fails_on_is_a_dead_letter_and_leaves_no_trace(batch_records: int) -> None:
    declared = declare("fraud", HalfWay(), FEATURES)
    fields = tuple(Field(name, "double", nullable=True, default=None) for name in (*FEATURES, "label"))
    schema = Schema("test.examples", fields)
    batch = examples(30, 1, nulls=0.0)
    batch.columns["c"] = batch.columns["c"].astype(np.float64)
    failing = [3, 4, 17]
    batch.columns["a"][failing] = 1e10
    sound = np.setdiff1d(np.arange(30), failing)
    expected = Learner(declared)
    expected.learn(batch.take(sound), "label", "examples[0]", sound)
    broker = MemoryBroker(1)
    broker.append(Output(EXAMPLES, [b"e"] * 30, RecordWriter(schema).encode(batch.select([f.name for f in fields])), 0))
    letters: list[str] = []

    def dead_letters(flows: Any, now_ms: int) -> list[Output]:
        found = [(int(flow.records.offsets[each.row]), each) for flow in flows for each in flow.rejections]
        letters.extend(f"{at} {each.reason} {each.detail}" for at, each in found)
        return []

    def run() -> LearnStage:
        stage = LearnStage(declared, Validate(RecordReader(schema, lambda _: None), 1 << 20), KEY, dead_letters)
        limits = LoopLimits(batch_records, 1)
        loop = StageLoop(stage, MemoryLog(broker, LEARN), limits, DeadLetterLimit(1.0, 1), None, Unobserved())
        loop.start()
        while batches := loop.poll(0.0):
            loop.handle(batches)
        return stage

    live = run()
    assert live.learner is not None
    said = "model-failed the online model fails on it: ValueError: too large"
    assert letters == [f"{at} {said}" for at in failing]
    assert weights(live.learner) == weights(expected)
    assert (live.learner.examples, live.learner.offsets) == (27, {"examples[0]": 30})
    broker.topics.pop(SNAPSHOTS)  # a recovery without a snapshot learns all of them again, and passes over the same
    again = run()
    assert again.learner is not None
    assert weights(again.learner) == weights(expected)
    assert len(letters) == len(failing)


def test_a_snapshot_that_outgrows_its_topic_stops_the_learner_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = LearnStage(DECLARED["logistic"], lambda records: pytest.fail("there are no examples"), KEY)
    stage.learner = Learner(DECLARED["logistic"])
    (written,) = stage.checkpoint(0, {})
    size = len(written.values[0] or b"")
    monkeypatch.setattr("millstream.stages.learn.stage.MOST_BYTES", size)
    assert stage.checkpoint(0, {})
    monkeypatch.setattr("millstream.stages.learn.stage.MOST_BYTES", size - 1)
    with pytest.raises(Stop, match=f"takes {size} bytes after 0 examples, .* declare fewer or smaller trees"):
        stage.checkpoint(0, {})


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (linear_model.LinearRegression, "no predict_proba_one"),
        (forest.ARFClassifier, "has no seed"),
        (lambda: preprocessing.StandardScaler() | ensemble.BaggingClassifier(naive_bayes.GaussianNB()), "has no seed"),
        (lambda: compose.FuncTransformer(lambda x: x) | linear_model.LogisticRegression(), "declare it with `def`"),
        (lambda: compose.Select("a") | linear_model.LogisticRegression(), "missing features"),
    ],
)
def test_what_cannot_be_an_online_model_is_said_at_declaration(make: Make, reason: str) -> None:
    with pytest.raises(Misconfigured, match=reason):
        declare("fraud", make(), FEATURES)
