"""Models of the benchmarks and chaos runs as promotion events: a text model with the least manifest."""

from __future__ import annotations

import time
from collections.abc import Mapping

from millstream.adapters.kafka.promotions import publish
from millstream.core.declaration import Service
from millstream.core.models.manifest import Manifest, Training, sha256
from millstream.ports import ModelVersion


def model_version(service: Service, version: int, body: str, created_at_ms: int = 0) -> ModelVersion:
    """Return a model's text as a version of the service's model, as a promotion event carries it."""
    manifest = Manifest(
        model=service.name,
        service=service.name,
        features=service.features,
        definitions={},
        training=Training(0, 0, 0, 0, {}, {}, "", {}),
        metrics={},
        threshold=0.5,
        profile={},
        params={},
        libraries={},
        git_commit=None,
        created_at_ms=created_at_ms,
        body_sha256=sha256(body),
    )
    return ModelVersion(service.name, version, manifest.to_json(), body, sha256(body))


def promote(kafka: Mapping[str, str], service: Service, body: str) -> None:
    """Publish version 1 of the service's model.

    Raises
    ------
    Retry, Stop
        Kafka did not take it.
    """
    now_ms = time.time_ns() // 1_000_000
    publish(kafka, model_version(service, 1, body, now_ms), now_ms)
