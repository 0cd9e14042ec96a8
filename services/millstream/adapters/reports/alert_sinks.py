"""Delivery of alerts over HTTP: to a webhook as they are, and to Prometheus' Alertmanager (API v2)."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from millstream.errors import Misconfigured, Retry

Form = Literal["webhook", "alertmanager"]
_TIMEOUT_S = 10.0
_HOLDS_MS = 30 * 86_400_000


def post_alert(form: Form, url: str, alert: Mapping[str, Any], now_ms: int, runbook_url: str = "") -> None:
    """Hand one alert on.

    Parameters
    ----------
    form : str
        ``webhook``: the alert as a JSON object. ``alertmanager``: a list of one alert of its API; ``url`` is then the
        server's, e.g. ``http://127.0.0.1:9093``.
    alert : mapping
        A row of ``schemas/alerts.avsc``.
    now_ms : int
        Wall clock.
    runbook_url : str
        Where the runbook is served; the alert's section of it is then sent as ``runbook_url``. Empty: it is not served.

    Raises
    ------
    Retry
        It cannot be reached, or answers that it is unavailable.
    Misconfigured
        The URL is none, or it is refused there.
    """
    if not url.startswith(("http://", "https://")):
        raise Misconfigured(f"{url!r} is no http:// or https:// URL")
    body: Any = {**alert, **_runbook(alert, runbook_url)}
    if form == "alertmanager":
        url, body = f"{url.rstrip('/')}/api/v2/alerts", [as_alertmanager(alert, now_ms, runbook_url)]
    text = json.dumps(finite(body), allow_nan=False).encode()
    request = urllib.request.Request(url, text, {"Content-Type": "application/json"}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
            return
    except urllib.error.HTTPError as error:
        if error.code >= 500 or error.code == 429:
            raise Retry(f"{url} answers {error.code} {error.reason}") from error
        raise Misconfigured(f"{url} refuses the alert: {error.code} {error.reason}") from error
    except OSError as error:
        raise Retry(f"{url} cannot be reached: {error}") from error


def as_alertmanager(alert: Mapping[str, Any], now_ms: int, runbook_url: str = "") -> dict[str, Any]:
    """Return an alert as Alertmanager takes it: labels say which incident it is, and stay; annotations say the rest."""
    # No severity among the labels: it may rise while an incident is open, and would make it another alert.
    labels = {
        "alertname": f"millstream_{alert['kind']}",
        "incident": alert["id"],
        "kind": alert["kind"],
        "model": alert["model"],
        "model_version": str(alert["model_version"]),
    }
    annotations = {
        "summary": f"{alert['kind']}: {alert['feature'] or alert['model']}, {alert['monitor']} "
        f"{alert['statistic']:.4g} against {alert['threshold']:.4g}",
        "severity": alert["severity"],
        "reason": alert["reason"],
        "subjects": alert["subjects"],
        **(_runbook(alert, runbook_url) or {"runbook": alert["runbook"]}),
    }
    # Alertmanager resolves what has no end and is not sent again within minutes, but an alert is handed on once. So its
    # end lies well beyond the next reminder until the incident is closed. Event time may be ahead of the clock, and
    # what would end before it starts is refused.
    ends_ms = max(now_ms, alert["opened_at_ms"]) + (0 if alert["event"] == "close" else _HOLDS_MS)
    return {
        "labels": labels,
        "annotations": annotations,
        "startsAt": _iso(alert["opened_at_ms"]),
        "endsAt": _iso(ends_ms),
    }


def finite(value: Any) -> Any:
    """Return a value as JSON can hold it: numbers that are not finite, at any depth, as null."""
    if isinstance(value, Mapping):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _runbook(alert: Mapping[str, Any], url: str) -> dict[str, str]:
    return {"runbook_url": f"{url}#{alert['kind']}"} if url else {}


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()
