"""Dashboard and alert rules name exactly the metrics and labels that the catalogue has."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from millstream.adapters.telemetry.metric_catalogue import (
    CATALOGUE,
    COUNTERS,
    GAUGES,
    HISTOGRAMS,
    CounterName,
    GaugeName,
    HistogramName,
)

INFRA = Path(__file__).parents[2] / "infra"
SAMPLE = re.compile(r"\bmillstream_\w+")
GROUPED = re.compile(r"\bby \(([^)]*)\)")
SERVER_LABELS = {"instance", "job", "le"}


def dashboard() -> dict[str, Any]:
    return json.loads((INFRA / "grafana" / "millstream.json").read_text())


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((INFRA / "prometheus" / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    asked = [target["expr"] for panel in panels() for target in panel["targets"]]
    asked += [rule["expr"] for rule in rules()]
    return asked + [variable["query"]["query"] for variable in dashboard()["templating"]["list"]]


def metric_of(sample: str) -> str:
    """Return the catalogue name of a sample name, i.e. without a histogram's suffix."""
    for suffix in ("_bucket", "_sum", "_count"):
        if sample.removesuffix(suffix) in HISTOGRAMS:
            return sample.removesuffix(suffix)
    return sample


def test_every_metric_shown_exists() -> None:
    named = {sample for text in expressions() for sample in SAMPLE.findall(text)}
    assert {sample for sample in named if metric_of(sample) not in CATALOGUE} == set()
    bare = {sample for sample in named if sample in HISTOGRAMS}
    assert bare == set(), "a histogram is asked for by _bucket, _sum or _count"


def test_every_metric_is_shown() -> None:
    named = {metric_of(sample) for text in expressions() for sample in SAMPLE.findall(text)}
    assert set(CATALOGUE) - named == set()


@pytest.mark.parametrize("text", expressions())
def test_labels_exist(text: str) -> None:
    samples = {metric_of(sample) for sample in SAMPLE.findall(text)}
    if not samples:
        return
    known = SERVER_LABELS.union(*(CATALOGUE[name].labels for name in samples))
    grouped = {label.strip() for labels in GROUPED.findall(text) for label in labels.split(",")}
    assert grouped <= known


def test_legends_use_labels_of_their_metric() -> None:
    for panel in panels():
        for target in panel["targets"]:
            samples = {metric_of(sample) for sample in SAMPLE.findall(target["expr"])}
            known = SERVER_LABELS.union(*(CATALOGUE[name].labels for name in samples))
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= known, panel["title"]


def test_alerts_say_what_to_do() -> None:
    for rule in rules():
        assert {"summary", "action"} <= set(rule["annotations"]), rule["alert"]
        assert rule["labels"]["severity"] in {"warning", "critical"}


def test_literals_and_catalogue_agree() -> None:
    assert set(get_args(CounterName)) == set(COUNTERS)
    assert set(get_args(GaugeName)) == set(GAUGES)
    assert set(get_args(HistogramName)) == set(HISTOGRAMS)
    assert all(name.endswith("_total") for name in COUNTERS)
    assert not any(name.endswith("_total") for name in (*GAUGES, *HISTOGRAMS))
    for name, metric in HISTOGRAMS.items():
        assert list(metric.buckets) == sorted(set(metric.buckets)), name
