"""Models that the chaos runs promote: two valid ones, and one of each kind that a scorer must refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from millstream.core.declaration import Service
from millstream.core.models.manifest import Manifest, sha256
from millstream.ports import ModelVersion
from millstream_lab.bench.promotion import model_version

BAD = ("truncated", "missing", "other-features", "other-digest")


def candidate(service: Service, version: int, seed: int) -> ModelVersion:
    """Return a small model of the service's features, trained on made-up rows."""
    import lightgbm

    names = [name for name, _ in service.features]
    random = np.random.default_rng(seed + version)
    rows = random.gamma(2.0, 20.0, (2_000, len(names)))
    labels = (rows[:, version % len(names)] + random.normal(0, 10, len(rows)) > 40).astype(int)
    data = lightgbm.Dataset(rows, label=labels, feature_name=names, params={"verbosity": -1})
    parameters = {"objective": "binary", "num_leaves": 15, "verbosity": -1, "num_threads": 1, "seed": seed}
    return model_version(service, version, lightgbm.train(parameters, data, num_boost_round=20).model_to_string())


def invalid(good: ModelVersion, version: int, how: str) -> ModelVersion:
    """Return a version that must be refused; ``how`` is one of `BAD`."""
    manifest = Manifest.from_json(good.manifest)
    body = good.body
    if how == "truncated":
        body = body[: len(body) // 2]
    elif how == "missing":
        body = ""
    elif how == "other-features":
        manifest = replace(manifest, features=(("somewhere__else", "float64"), *manifest.features[1:]))
    digest = "0" * 64 if how == "other-digest" else sha256(body)
    return ModelVersion(good.name, version, replace(manifest, body_sha256=digest).to_json(), body, digest)
