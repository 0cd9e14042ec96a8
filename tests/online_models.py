"""A small online model for tests, its snapshots, and what a thief of the key could make of one."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from river import linear_model, optim, preprocessing

from millstream.adapters.models import river_snapshot
from millstream.adapters.models.river_pipelines import CHAMPION_SCORE, OnlineModel, declare
from millstream.adapters.models.river_snapshot import FORMAT, MAGIC
from millstream.core.batch import Batch
from millstream.stages.learn.learner import Learner

KEY = b"sixteen bytes or more"
FEATURES = ("a", "b", CHAMPION_SCORE)


def pipeline(rate: float = 0.01) -> Any:
    """Return a fresh pipeline."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optimizer=optim.SGD(rate))


def declared(name: str = "fraud", features: Sequence[str] = FEATURES) -> OnlineModel:
    """Return a declared linear model."""
    return declare(name, pipeline(), features)


def learner_of(model: OnlineModel, count: int = 30, seed: int = 1) -> Learner:
    """Return a learner that has learnt a little."""
    rng = np.random.default_rng(seed)
    columns = {name: rng.random(count) for name in (*model.features, CHAMPION_SCORE)}
    learner = Learner(model)
    labels = (rng.random(count) < 0.4) * 1.0
    learner.learn(Batch(count, {**columns, "label": labels}), "label", "examples[0]", np.arange(count))
    return learner


def signed(snapshot: bytes, body: bytes, key: bytes = KEY) -> bytes:
    """Return the snapshot with another body, signed with the right key: what a thief of the key could do."""
    payload = snapshot[37:]
    length = int.from_bytes(payload[:4], "big")
    forged = payload[: 4 + length] + zlib.compress(body)
    return MAGIC + bytes([FORMAT]) + river_snapshot._sign(forged, key) + forged
