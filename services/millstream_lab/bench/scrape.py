"""What a worker says of itself: its metrics, and whether it is ready."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any

from millstream.adapters.telemetry.endpoint import worker_file

_TIMEOUT_S = 5.0


def told(state_dir: Path, worker: str, pid: int) -> dict[str, Any] | None:
    """Return where the worker of that process serves its metrics; None while it does not yet."""
    try:
        known: dict[str, Any] = json.loads(worker_file(state_dir, worker).read_text())
    except FileNotFoundError:
        return None
    return known if known["pid"] == pid else None


def ready(state_dir: Path, worker: str, pid: int) -> bool:
    """Return whether the worker has joined and recovered."""
    known = told(state_dir, worker, pid)
    if known is None:
        return False
    try:
        with urllib.request.urlopen(f"http://{known['host']}:{known['port']}/ready", timeout=_TIMEOUT_S):
            return True
    except urllib.error.HTTPError as answer:
        answer.close()
        return False
    except OSError:
        return False


def metrics(state_dir: Path, worker: str, pid: int) -> dict[str, float]:
    """Return each sample's value by name, summed over all labels but kind and phase: ``name:kind``."""
    from prometheus_client.parser import text_string_to_metric_families

    known = told(state_dir, worker, pid)
    if known is None:
        return {}
    with urllib.request.urlopen(f"http://{known['host']}:{known['port']}/metrics", timeout=_TIMEOUT_S) as answer:
        text = answer.read().decode()
    summed: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            kind = sample.labels.get("kind") or sample.labels.get("phase")
            summed[f"{sample.name}:{kind}" if kind else sample.name] += sample.value
    return dict(summed)
