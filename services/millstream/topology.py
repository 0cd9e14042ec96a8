"""Every topic and stage of a project as a value, in path order; `millstream.derivation` makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from millstream.core.avro.schema import Schema
from millstream.core.contracts import Contract
from millstream.core.declaration import View
from millstream.errors import Misconfigured

SCORED = "scored"
PREDICTIONS = "predictions"
DEAD_LETTERS = "dead-letters"
REDRIVEN = f"{DEAD_LETTERS}.redriven"
MODELS = "models"
SCHEMAS = "schemas"
LABELS = "labels"
EXAMPLES = "examples"
LABEL = "label"
LABEL_TIME = "label_known_at_ms"
REVISION = "revision"
JOIN = "join"
CHANGELOG = ".changelog"
"""What the name of each topic of state ends with."""
JOIN_CHANGELOG = "join.changelog"
LEARN = "learn"
SNAPSHOTS = "snapshots"
QUALITY = "quality"
QUALITY_CHANGELOG = "quality.changelog"
MEASURE = "measure"
MEASURES = "measures"
MEASURE_CHANGELOG = "measure.changelog"
MONITOR = "monitor"
MONITOR_CHANGELOG = "monitor.changelog"
ALERTS = "alerts"
ALERT_ACTIONS = "alerts.actions"

LOOP = (JOIN, LEARN, QUALITY, MEASURE, MONITOR)
"""Stages beyond the event path: the label loop, and what watches both."""

Cleanup = Literal["delete", "compact"]


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic: its name, what keys it, who writes and who reads it.

    ``partitions`` is None where the operator's setting decides; then it must be the same for all of them. Compaction
    leaves every record for ``whole_ms``.
    """

    name: str
    key: str
    writer: str
    readers: tuple[str, ...]
    cleanup: Cleanup = "delete"
    partitions: int | None = None
    whole_ms: int = 0


@dataclass(frozen=True, slots=True)
class LabelPlan:
    """The second input of a stage whose entity has label-derived features.

    Only what the windows need is re-keyed, not the whole example: it is a small part of it, and this way what a stage
    reads does not follow from the features that it, or a later one, writes.

    Parameters
    ----------
    input : str
        Topic of the examples, keyed by the entity.
    key_column : str
        The entity's column, whose text is the key.
    schema : Schema
        Of its records: event id, entity key, event columns, `LABEL`, `LABEL_TIME`, `REVISION`.
    views : tuple of View
        The entity's views over labels.
    """

    input: str
    key_column: str
    schema: Schema
    views: tuple[View, ...]


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage: what it reads, the entity whose windows it keeps, and what it writes.

    Parameters
    ----------
    name : str
        Entity name; also what ``millstream run`` calls it.
    input, output : str
        Topic names; ``output`` is the next stage's input, or `SCORED` for the last.
    input_schema, output_schema : Schema
        As read and as written.
    join_key, key_column, source_key : str
        The entity's column; the column whose text keys the output; the one that keys the event topic.
    views : tuple of View
        All views of the entity over events.
    first, last : bool
        The first validates against the contract, the last scores.
    labels : LabelPlan or None
        What label-derived features need; None where there are none.
    event_id : str
        The column whose text keys the output of events that have no ``key_column``.
    internal : str
        Begins the names of topics that only stages use.
    """

    name: str
    input: str
    output: str
    input_schema: Schema
    output_schema: Schema
    join_key: str
    key_column: str
    source_key: str
    views: tuple[View, ...]
    first: bool
    last: bool
    labels: LabelPlan | None = None
    event_id: str = ""
    internal: str = ""

    @property
    def inputs(self) -> tuple[str, ...]:
        """All topics the stage reads; the first one's partitions are shared out, the others' follow."""
        return (self.input,) if self.labels is None else (self.input, self.labels.input)

    @property
    def changelog(self) -> str:
        """The compacted topic that holds this stage's window state."""
        return f"{self.internal}{self.name}{CHANGELOG}"

    @property
    def feature_time_column(self) -> str:
        """The column with the entity's feature timestamp, microseconds since the epoch."""
        return f"{self.name}__feature_time_us"


@dataclass(frozen=True, slots=True)
class AgentPlan:
    """A stage that the project declares itself, in ``agents.py`` of its feature repo.

    Parameters
    ----------
    name : str
        Of the agent.
    input : str
        Topic that it reads.
    internal : str
        As in `StagePlan`.
    """

    name: str
    input: str
    internal: str = ""

    @property
    def changelog(self) -> str:
        """The compacted topic that holds the entries of the agent's tables."""
        return f"{self.internal}{self.name}{CHANGELOG}"


@dataclass(frozen=True, slots=True)
class Topology:
    """All stages in path order, and all topics."""

    project: str
    stages: tuple[StagePlan, ...]
    topics: tuple[Topic, ...]
    agents: tuple[AgentPlan, ...] = ()

    def with_agents(
        self, agents: Sequence[AgentPlan], contracts: Mapping[str, Contract], names: Sequence[str]
    ) -> Topology:
        """Return the topology with the agents of a project and the topics that they read and write.

        Parameters
        ----------
        contracts : mapping of str to Contract
            By topic.
        names : sequence of str
            All topics that the agents name.
        """
        readers: dict[str, tuple[str, ...]] = {}
        for agent in agents:
            readers[agent.input] = (*readers.get(agent.input, ()), agent.name)
        topics = [replace(each, readers=(*each.readers, *readers.get(each.name, ()))) for each in self.topics]
        known = {each.name: each for each in topics}
        for name in names:
            if name not in known:
                key = contracts[name].key or "key"
                known[name] = Topic(name, key, "agents" if name not in readers else "producers", readers.get(name, ()))
        for agent in agents:
            count = known[agent.input].partitions
            known[agent.changelog] = Topic(agent.changelog, "entry", agent.name, (agent.name,), "compact", count)
        return replace(self, topics=tuple(known.values()), agents=tuple(agents))

    @property
    def label_derived(self) -> bool:
        """Whether any feature is made of labels."""
        return any(stage.labels is not None for stage in self.stages)

    @property
    def joins(self) -> bool:
        """Whether labels are joined with predictions; not where labels are the events themselves."""
        return self.stages[0].input != LABELS

    @property
    def names(self) -> tuple[str, ...]:
        """The stages that ``millstream run`` accepts, in path order."""
        own = tuple(agent.name for agent in self.agents)
        return tuple(stage.name for stage in self.stages) + (LOOP if self.joins else ()) + own

    def group(self, stage: str) -> str:
        """Return the consumer group of a stage."""
        return f"{self.project}.{stage}"

    def stage(self, name: str) -> StagePlan:
        """Return the stage of that name.

        Raises
        ------
        Misconfigured
            Naming the stages there are.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise Misconfigured(f"there is no stage {name!r}; there are: {', '.join(self.names)}")
