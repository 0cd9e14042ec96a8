"""The learner against River's own pace, on the online model that the reference repo declares."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from millstream.adapters.models.river_pipelines import CHAMPION_SCORE, load
from millstream.core.batch import Batch
from millstream_lab.bench.plan import BenchPlan, Measured, Track, number
from millstream_lab.bench.stack import Stack, as_it_is
from millstream_lab.evaluation.compare import Pace, pace
from millstream_lab.tables import Table

MOST_SLOWER = 0.15
BASELINES = {
    "evaluated_per_s": "River's progressive_val_score",
    "bare_per_s": "bare predict and learn, rows made",
    "ready_per_s": "bare predict and learn, rows ready",
}


def measure_learner(plan: BenchPlan, stack: Stack, track: Track) -> Measured:
    """Measure."""
    assembly = as_it_is(stack, plan.reference_repo, plan.partitions).assembly
    service = assembly.declaration.service
    declared = load(assembly.online_model_file, service)
    batch, labels = made_up_examples([name for name, _ in service.features], plan.learner_examples, plan.seed)
    progress = track("learner: all sides in turn", plan.learner_rounds)
    found = pace(declared, batch, labels, plan.learner_rounds, progress=progress)
    figures = {**asdict(found), "features": len(declared.features), "model": " | ".join(_steps(declared.fresh))}
    return Measured(figures, complaints(found))


def complaints(found: Pace) -> list[str]:
    """Return in words by how much the learner is slower than it may be."""
    slower = found.slower_than(found.evaluated_per_s)
    if slower <= MOST_SLOWER:
        return []
    return [f"the learner is {slower:.0%} slower than River's own loop; it may be {MOST_SLOWER:.0%}"]


def made_up_examples(features: list[str], count: int, seed: int) -> tuple[Batch, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Return rows of such features, and labels of which one in a hundred is positive and can be learnt."""
    random = np.random.default_rng(seed)
    columns = {name: np.round(random.gamma(2, 25, count), 2) for name in features}
    score = random.beta(1, 20, count)
    return Batch(count, {**columns, CHAMPION_SCORE: score}), random.random(count) < 0.2 * score


def _steps(model: Any) -> list[str]:
    return [type(step).__name__ for step in getattr(model, "steps", {"": model}).values()]


def learner_method(plan: BenchPlan) -> list[str]:
    """Say how."""
    return [
        f"The reference repo's online model learns {plan.learner_examples:,} examples from nothing, each side in turn, "
        f"{plan.learner_rounds} rounds; CPU time of the quickest round of each.",
        "Baselines: River's own loop, progressive_val_score with a log-loss on dicts made of an array row by row, "
        "which is what the learner must keep up with; nothing but predict_proba_one and learn_one, on such dicts; "
        "and the same on dicts made before the clock starts. The learner makes its rows of columns, leaves out "
        "what is missing and keeps log-loss, Brier score, AUC and offsets. Kafka not included.",
        f"Wrong: more than {MOST_SLOWER:.0%} slower than River's own loop.",
    ]


def learner_tables(figures: dict[str, Any]) -> list[Table]:
    """Return the figures as a table."""
    ours = figures["learner_per_s"]
    rows = [("Millstream's learner", number(ours), "")]
    rows += [(words, number(figures[name]), f"{1 - ours / figures[name]:+.1%}") for name, words in BASELINES.items()]
    title = f"Learning one by one: {figures['model']}, {figures['features']} features"
    return [Table(title, ("", "examples per CPU second", "learner slower by"), rows)]
