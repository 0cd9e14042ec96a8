"""A small world for model tests: meters that report load; nothing of it is about cards."""

from __future__ import annotations

from functools import cache

import numpy as np

from millstream.core.declaration import Aggregate, Declaration, Service, View
from millstream.core.models.manifest import Manifest, Training, define, sha256
from millstream.core.profile import profile
from millstream.ports import ModelVersion

HOUR_MS = 3_600_000
FEATURES = (("load__mean_1h", "float64"), ("load__count_1h", "int64"))


def a_declaration() -> Declaration:
    aggregates = (
        Aggregate("mean_1h", "float64", "load_kw", "mean", HOUR_MS),
        Aggregate("count_1h", "int64", "load_kw", "count", HOUR_MS),
    )
    view = View("load", "meter", "meter_id", "string", "readings", "event_time_ms", 0, aggregates)
    tags = {"decision_above": "inspect", "decision_below": "leave"}
    baseline = "CASE WHEN load__mean_1h > 5 THEN 0.9 ELSE 0.1 END"
    return Declaration("grid", "readings", (view,), (), (), Service("meters", FEATURES, baseline, 0.5, tags))


@cache
def a_body(seed: int = 0, rounds: int = 8) -> str:
    """Text of a LightGBM model of `FEATURES`: positive where the mean load is high; 10 % of means are missing."""
    import lightgbm

    random = np.random.default_rng(seed)
    matrix = np.column_stack([random.uniform(0, 10, 2000), random.integers(1, 9, 2000).astype(float)])
    labels = matrix[:, 0] + random.normal(0, 1, 2000) > 6
    matrix[random.random(2000) < 0.1, 0] = np.nan
    data = lightgbm.Dataset(matrix, labels.astype(float), feature_name=[name for name, _ in FEATURES])
    params = {"objective": "binary", "verbosity": -1, "num_threads": 1, "num_leaves": 7, "seed": 1}
    booster = lightgbm.train(params, data, rounds)
    return str(booster.model_to_string(importance_type="gain"))


def a_manifest(body: str = "tree", **changed: object) -> Manifest:
    fields: dict[str, object] = {
        "model": "meter-faults",
        "service": "meters",
        "features": FEATURES,
        "definitions": define(a_declaration()),
        "training": Training(0, 10, 20, 5, {"train": 2}, {"train": 1}, "ab", {"readings[0]": (3, 9)}),
        "metrics": {"auc": 0.75},
        "threshold": 0.25,
        "profile": {"load__mean_1h": profile(np.array([1.0, 2.0, np.nan]))},
        "params": {"num_leaves": 7, "objective": "binary"},
        "libraries": {"lightgbm": "4.7.0"},
        "git_commit": None,
        "created_at_ms": 1_500_000_000_000,
        "body_sha256": sha256(body),
    }
    return Manifest(**{**fields, **changed})  # type: ignore[arg-type]


def a_version(number: int = 1, body: str | None = None, **changed: object) -> ModelVersion:
    body = a_body() if body is None else body
    manifest = a_manifest(body, **changed)
    return ModelVersion(manifest.model, number, manifest.to_json(), body, sha256(body))
