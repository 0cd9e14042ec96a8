"""The metrics of a worker, read from its Prometheus endpoint."""

from __future__ import annotations

import urllib.request
from collections import defaultdict
from pathlib import Path

from millstream.app.worker_processes import address_of

_TIMEOUT_S = 5.0


def metrics(state_dir: Path, worker: str, pid: int) -> dict[str, float]:
    """Return each sample's value by name, summed over all labels but kind and phase: ``name:kind``."""
    from prometheus_client.parser import text_string_to_metric_families

    address = address_of(state_dir, worker, pid)
    if address is None:
        return {}
    with urllib.request.urlopen(f"http://{address['host']}:{address['port']}/metrics", timeout=_TIMEOUT_S) as answer:
        text = answer.read().decode()
    summed: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            kind = sample.labels.get("kind") or sample.labels.get("phase")
            summed[f"{sample.name}:{kind}" if kind else sample.name] += sample.value
    return dict(summed)
