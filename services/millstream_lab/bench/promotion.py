"""Put the benchmark's model where Millstream's scorers look for it: as a promotion event."""

from __future__ import annotations

import time
from collections.abc import Mapping

from millstream.adapters.kafka.promotions import publish
from millstream.core.declaration import Service
from millstream.core.models.manifest import Manifest, Training, sha256
from millstream.ports import ModelVersion


def promote(kafka: Mapping[str, str], service: Service, body: str) -> None:
    """Publish version 1 of the service's model.

    Raises
    ------
    Retry, Stop
        Kafka did not take it.
    """
    now_ms = time.time_ns() // 1_000_000
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
        created_at_ms=now_ms,
        body_sha256=sha256(body),
    )
    publish(kafka, ModelVersion(service.name, 1, manifest.to_json(), body, sha256(body)), now_ms)
