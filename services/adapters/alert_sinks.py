"""Alerts handed on over HTTP: as they are to a webhook, and as Prometheus' Alertmanager takes them (API v2)."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from services.errors import Misconfigured, Retry

Form = Literal["webhook", "alertmanager"]
_TIMEOUT_S = 10.0


def post_alert(form: Form, url: str, alert: Mapping[str, Any]) -> None:
    """Hand one alert on.

    Parameters
    ----------
    form : str
        ``webhook``: the alert as a JSON object. ``alertmanager``: a list of one alert of its API; ``url`` is then the
        server's, e.g. ``http://127.0.0.1:9093``.
    alert : mapping
        A row of ``schemas/alerts.avsc``.

    Raises
    ------
    Retry
        It cannot be reached, or says that it cannot for now.
    Misconfigured
        The URL is none, or it is refused there.
    """
    if not url.startswith(("http://", "https://")):
        raise Misconfigured(f"{url!r} is no http:// or https:// URL")
    body: Any = alert
    if form == "alertmanager":
        url, body = f"{url.rstrip('/')}/api/v2/alerts", [as_alertmanager(alert)]
    text = json.dumps(body, allow_nan=True).encode()
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


def as_alertmanager(alert: Mapping[str, Any]) -> dict[str, Any]:
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
        "runbook_url": alert["runbook"],
    }
    told = {"labels": labels, "annotations": annotations, "startsAt": _iso(alert["opened_at_ms"])}
    if alert["event"] == "close":
        told["endsAt"] = _iso(alert["at_ms"])
    return told


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()
