"""The online model beside the champion: shadow, answer or share of it, and never in the champion's way."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest
from river import linear_model, naive_bayes

from fakes_models import FEATURES, a_declaration, a_version
from millstream.adapters.models.river_model import OnlineScorer
from millstream.adapters.models.river_pipelines import CHAMPION_LOGIT, CHAMPION_SCORE, declare
from millstream.core.batch import Batch
from millstream.runtime.flow import Flow
from millstream.runtime.log.records import Records
from millstream.stages.learn.learner import Learner
from millstream.stages.score.online import Online
from millstream.stages.score.policy import Answering, AnswerPolicy
from millstream.stages.score.scorer import Answer, Champion, Scorer
from millstream.stages.score.step import Score
from online_models import KEY, pipeline

SERVICE = a_declaration().service
CHAMPION = Champion.load(a_version(7, threshold=0.3), SERVICE)
NAMES = (*(name for name, _ in FEATURES), CHAMPION_LOGIT)


def a_batch(rows: int, seed: int = 5) -> Batch:
    rng = np.random.default_rng(seed)
    return Batch(rows, {"load__mean_1h": rng.uniform(0, 10, rows), "load__count_1h": rng.integers(1, 9, rows)})


def a_snapshot(model: Any = None, rows: int = 200) -> OnlineScorer:
    """Return what a scorer makes of a snapshot after so many examples."""
    declared = declare(SERVICE.name, model or pipeline(), NAMES)
    learner, batch = Learner(declared), a_batch(rows, seed=1)
    rng = np.random.default_rng(2)
    labels = (batch.columns["load__mean_1h"] < rng.uniform(0, 10, rows)) * 1.0
    taught = batch.with_columns({"label": labels, CHAMPION_SCORE: CHAMPION.predict(batch)})
    learner.learn(taught, "label", "examples[0]", np.arange(rows))
    return OnlineScorer.load(learner.snapshot(KEY), declared, KEY)


def scored(
    batch: Batch, scorer: OnlineScorer | None, policy: AnswerPolicy, champion: Champion | None = CHAMPION
) -> Answer:
    online = Online()
    online.scorer = scorer
    return Scorer(SERVICE, champion, online, policy).score(batch)


def test_a_shadow_is_recorded_and_changes_nothing() -> None:
    batch, snapshot = a_batch(300), a_snapshot()
    with_shadow, without = (scored(batch, each, AnswerPolicy()) for each in (snapshot, None))
    for name in ("score", "arm", "model", "model_version", "decision", "champion_score", "champion_version"):
        assert with_shadow.columns[name].tolist() == without.columns[name].tolist()
    assert set(without.columns["arm"]) == {"champion"}
    assert without.nulls["online_score"].all()
    assert without.nulls["online_version"].all()
    champions = CHAMPION.predict(batch)
    assert with_shadow.columns["champion_score"].tolist() == without.columns["score"].tolist() == champions.tolist()
    assert set(with_shadow.columns["champion_version"].tolist()) == {7}
    expected = snapshot.score(batch.with_columns({CHAMPION_SCORE: champions}))
    assert with_shadow.columns["online_score"].tolist() == expected.tolist()
    assert set(with_shadow.columns["online_version"].tolist()) == {200}
    assert not any(mask.any() for mask in with_shadow.nulls.values())
    assert with_shadow.counts == {"online_budget": 0, "online_silent": 0}


@pytest.mark.parametrize(("answer", "share"), [("online", 1.0), ("blend", 0.25), ("blend", 0.0), ("blend", 1.0)])
def test_the_answer_is_the_declared_mix_under_the_champions_threshold(answer: Answering, share: float) -> None:
    batch = a_batch(300)
    given = scored(batch, a_snapshot(), AnswerPolicy(answer, share))
    mix = (1 - share) * given.columns["champion_score"] + share * given.columns["online_score"]
    assert given.columns["score"].tolist() == pytest.approx(mix.tolist(), abs=1e-15)
    assert set(given.columns["arm"]) == {answer}
    assert set(given.columns["model_version"].tolist()) == {200 if answer == "online" else 7}
    assert set(given.columns["model"]) == {"meters" if answer == "online" else "meter-faults"}
    inspected = given.columns["score"] >= 0.3
    assert given.columns["decision"].tolist() == np.where(inspected, "inspect", "leave").tolist()
    assert inspected.any() != inspected.all()


@pytest.mark.parametrize("answer", ["online", "blend"])
def test_where_the_online_model_is_silent_the_champion_answers_and_the_arm_says_so(answer: Answering) -> None:
    batch = a_batch(60)
    for scorer in (None, a_snapshot(naive_bayes.GaussianNB(), rows=0)):
        given = scored(batch, scorer, AnswerPolicy(answer))
        assert set(given.columns["arm"]) == {"champion"}
        assert given.columns["score"].tolist() == given.columns["champion_score"].tolist()
        assert given.nulls["online_score"].all()
        assert given.nulls["online_version"].all() == (scorer is None)
    # Of two segments one has taught nothing yet, and no other shares its model.
    site = np.array(["old"] * 200, dtype=object)
    declared = declare("meters", naive_bayes.GaussianNB(), NAMES, segment="site", max_segments=9)
    learner, taught = Learner(declared), a_batch(200).with_columns({"site": site, CHAMPION_SCORE: np.full(200, 0.5)})
    labels = (taught.columns["load__mean_1h"] > 4) * 1.0
    learner.learn(taught.with_columns({"label": labels}), "label", "examples[0]", np.arange(200))
    mixed = batch.with_columns({"site": np.array(["old", "new"] * 30, dtype=object)})
    given = scored(mixed, learner.scorer(), AnswerPolicy(answer))
    assert given.columns["arm"].tolist() == [answer, "champion"] * 30
    assert given.nulls["online_score"].tolist() == [False, True] * 30
    assert given.counts["online_silent"] == 30


def test_without_a_champion_a_blend_is_left_to_the_rule_and_the_online_model_answers_alone() -> None:
    batch, snapshot = a_batch(50), a_snapshot()
    blend = scored(batch, snapshot, AnswerPolicy("blend"), champion=None)
    assert set(blend.columns["arm"]) == {"baseline"}
    assert blend.nulls["champion_score"].all()
    assert blend.nulls["champion_version"].all()
    assert not blend.nulls["online_score"].any()
    alone = scored(batch, snapshot, AnswerPolicy("online"), champion=None)
    assert set(alone.columns["arm"]) == {"online"}
    assert (alone.columns["decision"] == np.where(alone.columns["score"] >= 0.5, "inspect", "leave")).all()


def test_a_slow_shadow_gets_its_budget_and_a_fair_sample() -> None:
    """A clock that moves one millisecond each time it is asked: once at first, and once before each row."""
    ticks = count()
    online = Online(budget_ms=40, clock_s=lambda: next(ticks) / 1000)
    online.scorer = a_snapshot(naive_bayes.GaussianNB())
    assert not online.scorer.vectorised
    batch = a_batch(400).with_columns({CHAMPION_SCORE: np.full(400, 0.5)})
    opinion = online.score(batch)
    told = np.flatnonzero(~np.isnan(opinion.scores))
    assert len(told) == 39
    assert opinion.counts == {"online_budget": 361, "online_silent": 0}
    assert (told < 200).any()
    assert (told >= 200).any()
    assert opinion.scores[told].tolist() == online.scorer.score(batch)[told].tolist()
    given = Scorer(SERVICE, CHAMPION, online).score(a_batch(400))
    assert np.isnan(given.columns["online_score"]).sum() == 361
    assert set(given.columns["arm"]) == {"champion"}


def test_columns_need_no_budget_and_who_answers_has_none() -> None:
    frozen = Online(budget_ms=0, clock_s=lambda: 0.0)
    frozen.scorer = a_snapshot()
    batch = a_batch(400).with_columns({CHAMPION_SCORE: np.full(400, 0.5)})
    assert not np.isnan(frozen.score(batch).scores).any()
    frozen.scorer = a_snapshot(naive_bayes.GaussianNB())
    assert np.isnan(frozen.score(batch).scores).all()
    unbounded = Online(budget_ms=None, clock_s=lambda: pytest.fail("nobody looks at the clock"))
    unbounded.scorer = frozen.scorer
    assert not np.isnan(unbounded.score(batch).scores).any()


class Brittle(linear_model.LogisticRegression):
    """Fails on large values."""

    def predict_proba_one(self, x: dict[str, float]) -> dict[bool, float]:
        if x.get("load__mean_1h", 0) > 1e9:
            raise ValueError("too large")
        return dict(super().predict_proba_one(x))


def test_a_shadow_that_fails_is_counted_told_once_and_the_champion_answers(caplog: pytest.LogCaptureFixture) -> None:
    online = Online()
    online.scorer = a_snapshot(Brittle())
    scorer = Scorer(SERVICE, CHAMPION, online, AnswerPolicy("online"))
    broken = a_batch(5)
    broken.columns["load__mean_1h"][3] = 1e10
    with caplog.at_level(logging.ERROR):
        answers = [scorer.score(broken), scorer.score(broken)]
    for answer in answers:
        assert set(answer.columns["arm"]) == {"champion"}
        assert answer.counts == {"online_failed": 5}
    assert [record.getMessage().count("ValueError: too large") for record in caplog.records] == [1]
    assert set(scorer.score(a_batch(5)).columns["arm"]) == {"online"}


def test_the_step_counts_and_carries_every_column() -> None:
    score = Score(SERVICE, [], online=Online(), policy=AnswerPolicy("online"))
    score.swap(CHAMPION)
    score.swap_online(a_snapshot())
    batch = a_batch(4)
    values = [b""] * 4
    records = Records("readings", np.zeros(4, dtype=np.int64), np.arange(4), np.arange(4), values, values)
    flow = Flow(records, np.arange(4), batch, counts={"late": 1})
    out = score(flow, 99)
    assert out.counts == {"late": 1, "online_budget": 0, "online_silent": 0}
    assert out.batch.columns["online_version"].tolist() == [200] * 4
    assert replace(out.batch, columns={}).nulls["champion_score"].tolist() == [False] * 4
    assert score.online is not None
