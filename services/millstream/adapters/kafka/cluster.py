"""Connection settings of a project's cluster, and the names of its topics there.

Inside, every topic has the name of `millstream.topology`; where a client needs it, `named` returns what it is called on
the cluster. So two projects share a cluster, and no stage knows.
"""

from __future__ import annotations

from collections.abc import Mapping


class Cluster(dict[str, str]):
    """librdkafka settings of a project.

    Parameters
    ----------
    settings : mapping
        librdkafka's.
    project : str
        "" where there is no feature repo.
    names : mapping of str to str
        What a topic of the engine is called on the cluster; one that is absent keeps its name.
    """

    def __init__(self, settings: Mapping[str, str], project: str = "", names: Mapping[str, str] | None = None) -> None:
        super().__init__(settings)
        self.project = project
        self.names = dict(names or {})

    def with_settings(self, more: Mapping[str, str]) -> Cluster:
        """Return the same project's cluster with further settings."""
        return Cluster({**self, **more}, self.project, self.names)


def named(kafka: Mapping[str, str], topic: str) -> str:
    """Return what a topic is called on the cluster."""
    return kafka.names.get(topic, topic) if isinstance(kafka, Cluster) else topic


def inside(kafka: Mapping[str, str], found: str) -> str:
    """Return the engine's name of a topic of the cluster; the opposite of `named`."""
    if isinstance(kafka, Cluster):
        return next((topic for topic, name in kafka.names.items() if name == found), found)
    return found
