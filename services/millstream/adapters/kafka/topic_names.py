"""``topics.toml`` of the feature repo: what the project's topics are called on the cluster. Everything has a default.

::

    project = "flights"               # the project it is for; default: any
    internal = "flights."             # begins the names of topics that only stages use; default: the project and a dot
    public = ""                       # begins the names of topics that others read or write too; default: nothing

    [names]                           # single ones, whole
    scored = "flights-scored"
    labels = "arrivals"

The topic of the events is the one that the feature repo declares.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from millstream.adapters.kafka.cluster import Cluster, inside
from millstream.errors import Misconfigured
from millstream.settings import Settings
from millstream.topology import (
    ALERT_ACTIONS,
    ALERTS,
    DEAD_LETTERS,
    EXAMPLES,
    JOIN_CHANGELOG,
    LABELS,
    MEASURE_CHANGELOG,
    MEASURES,
    MODELS,
    MONITOR_CHANGELOG,
    PREDICTIONS,
    QUALITY,
    QUALITY_CHANGELOG,
    REDRIVEN,
    SCHEMAS,
    SCORED,
    SNAPSHOTS,
)

FILE: Final = "topics.toml"
PUBLIC: Final = (
    SCORED, PREDICTIONS, DEAD_LETTERS, MODELS, SCHEMAS, LABELS, EXAMPLES, QUALITY, ALERTS, ALERT_ACTIONS,
)  # fmt: skip
INTERNAL: Final = (
    JOIN_CHANGELOG, SNAPSHOTS, QUALITY_CHANGELOG, MEASURES, MEASURE_CHANGELOG, MONITOR_CHANGELOG, REDRIVEN,
)  # fmt: skip
_ALLOWED: Final = re.compile(r"[a-zA-Z0-9._-]{0,200}")


@dataclass(frozen=True, slots=True)
class TopicNames:
    """What a project's topics are called.

    Parameters
    ----------
    project : str
        "" where there is no feature repo.
    internal : str
        Begins the names of topics that only stages use.
    names : mapping of str to str
        Of the topics of fixed name, those that are called otherwise on the cluster.
    """

    project: str = ""
    internal: str = ""
    names: dict[str, str] = field(default_factory=dict)


def load_topic_names(feature_repo: Path) -> TopicNames:
    """Return what the feature repo declares; where there is no repo, every topic keeps its name.

    Raises
    ------
    Misconfigured
        Naming the key that is wrong, what was given and what is allowed.
    """
    project = _project(feature_repo)
    if not project:
        return TopicNames()
    path = feature_repo / FILE
    try:
        raw = tomllib.loads(path.read_text()) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{path} cannot be read: {error}") from error
    if unknown := sorted(raw.keys() - {"project", "internal", "public", "names"}):
        raise Misconfigured(f"{path}: {unknown[0]!r} is no key; there are project, internal, public and [names]")
    if raw.get("project", project) != project:
        raw = {}
    single = raw.get("names", {})
    if not isinstance(single, dict) or (unknown := sorted(single.keys() - {*PUBLIC, *INTERNAL})):
        found, topics = unknown[0] if isinstance(single, dict) else single, ", ".join((*PUBLIC, *INTERNAL))
        raise Misconfigured(f"{path}: [names] has {found!r}; topics are: {topics}")
    internal = _name(path, "internal", raw.get("internal", f"{project}."))
    public = _name(path, "public", raw.get("public", ""))
    names = {topic: public + topic for topic in PUBLIC} | {topic: internal + topic for topic in INTERNAL}
    names |= {topic: _name(path, topic, name, least=1) for topic, name in single.items()}
    if twice := [name for name, count in Counter(names.values()).items() if count > 1]:
        raise Misconfigured(f"{path}: two topics are called {twice[0]!r}")
    return TopicNames(project, internal, {topic: name for topic, name in names.items() if name != topic})


def topic_names(settings: Settings) -> TopicNames:
    """Return what the topics of the settings' feature repo are called; see `load_topic_names`."""
    return load_topic_names(settings.feature_repo)


def plain_name(settings: Settings, given: str) -> str:
    """Return the engine's name of a topic that an operator has named by it, or by its name on the cluster."""
    return inside(Cluster({}, names=topic_names(settings).names), given)


def cluster_of(settings: Settings, kafka: Mapping[str, str]) -> Cluster:
    """Return how the project of the settings reaches a cluster with these client settings."""
    found = topic_names(settings)
    return Cluster(kafka, found.project, found.names)


def _name(path: Path, key: str, given: Any, least: int = 0) -> str:
    if not isinstance(given, str) or len(given) < least or not _ALLOWED.fullmatch(given):
        raise Misconfigured(f"{path}: {key} = {given!r}; Kafka allows letters, digits, '.', '_' and '-' in names")
    return given


def _project(feature_repo: Path) -> str:
    """Return the project's name; what is wrong with Feast's settings is reported when they are used."""
    try:
        # As Feast does, which takes variables of the environment there.
        found = yaml.safe_load(os.path.expandvars((feature_repo / "feature_store.yaml").read_text()))
        return str(found["project"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return ""
