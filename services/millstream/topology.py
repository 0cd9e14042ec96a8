"""Every topic and stage as a value, derived from the feature repo and the event contract, in path order.

One hop per entity: each entity's state lives in exactly one partition, and features ride along in the event to the
next hop, so the score sees every entity's features, the current event included, without reading Redis.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from millstream.core.avro.schema import Field, Schema
from millstream.core.avro.schema_field import Kind
from millstream.core.avro.schema_type import as_name
from millstream.core.contracts import Contract
from millstream.core.declaration import Declaration, FeatureType, View
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
        """What ``millstream run`` can be told to run, in path order."""
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


def record_name(project: str, topic: str) -> str:
    """Return the Avro name of a topic's records: the project is the namespace; what Avro does not allow becomes _.

    Examples
    --------
    >>> record_name("cards", "card-payments.terminal")
    'cards.card_payments_terminal'
    """
    return f"{as_name(project)}.{as_name(topic)}"


def feature_field(column: str, dtype: FeatureType) -> Field:
    """Return the Avro field that carries a feature: nullable, null by default, so that features may come and go."""
    kinds: dict[FeatureType, Kind] = {
        "int64": "long",
        "int32": "int",
        "float64": "double",
        "float32": "float",
        "bool": "boolean",
        "string": "string",
        "unix_timestamp": "long",
    }
    return Field(column, kinds[dtype], nullable=True, default=None)


def derive(
    declaration: Declaration, contract: Contract, envelope: Contract, examples: Contract, internal: str = ""
) -> Topology:
    """Derive stages and topics.

    Parameters
    ----------
    declaration : Declaration
        The compiled feature repo.
    contract : Contract
        Of ``declaration.topic``.
    envelope : Contract
        ``schemas/scored.avsc``: the fields of `SCORED` besides the event's and the features'.
    examples : Contract
        ``schemas/examples.avsc``: the fields of `EXAMPLES` besides those of `SCORED`.
    internal : str
        Begins the names of topics that only stages use and that follow from the declaration.

    Raises
    ------
    Misconfigured
        If no entity is keyed like the event topic, so that the first stage would see a key in several partitions; or
        an entity has views of labels and none of events.
    """
    entities: dict[str, list[View]] = {}
    for view in declaration.views:
        if not view.of_labels:
            entities.setdefault(view.entity, []).append(view)
    labels = _label_plans(declaration, contract, examples, entities, internal)
    ordered = sorted(entities.items(), key=lambda item: item[1][0].join_key != contract.key)
    if not ordered or ordered[0][1][0].join_key != contract.key:
        joined = ", ".join(sorted({view.join_key for view in declaration.views})) or "none"
        raise Misconfigured(
            f"the contract of {declaration.topic!r} keys its messages by {contract.key!r}, but no stream feature view "
            f"has that join key (there are: {joined}). Key the topic by one of the entities"
        )
    carried: list[Field] = [
        *contract.schema.fields,
        Field("received_at_ms", "long", logical_type="timestamp-millis"),
        Field("source_partition", "int"),
        Field("source_offset", "long"),
    ]
    stages: list[StagePlan] = []
    incoming = contract.schema
    topic = declaration.topic
    for position, (entity, views) in enumerate(ordered):
        last = position == len(ordered) - 1
        carried.append(Field(f"{entity}__feature_time_us", "long", nullable=True, default=None))
        label_plan = labels.get(entity)
        carried += [
            feature_field(column, aggregate.dtype)
            for view in (*views, *(label_plan.views if label_plan else ()))
            for column, aggregate in zip(view.columns, view.aggregates, strict=True)
        ]
        if last:
            output = named = SCORED
            key_column = contract.event_id
            given = [(view.name, view.outputs) for view in declaration.on_demand]
            given += [(view.name, view.features) for view in declaration.batch]
            carried += [feature_field(f"{view}__{name}", dtype) for view, outputs in given for name, dtype in outputs]
            present = {field.name for field in carried}
            carried += [field for field in envelope.schema.fields if field.name not in present]
        else:
            following = ordered[position + 1][0]
            named = f"{declaration.topic}.{following}"
            output = internal + named
            key_column = ordered[position + 1][1][0].join_key
        outgoing = Schema(record_name(declaration.project, named), tuple(carried))
        stages.append(
            StagePlan(
                name=entity,
                input=topic,
                output=output,
                input_schema=incoming,
                output_schema=outgoing,
                join_key=views[0].join_key,
                key_column=key_column,
                source_key=contract.key,
                views=tuple(views),
                first=position == 0,
                last=last,
                labels=label_plan,
                event_id=contract.event_id,
                internal=internal,
            )
        )
        incoming, topic = outgoing, output
    return Topology(declaration.project, tuple(stages), _topics(declaration, contract, stages))


def _label_plans(
    declaration: Declaration, contract: Contract, examples: Contract, entities: Mapping[str, object], internal: str
) -> dict[str, LabelPlan]:
    """Return what each entity with views of labels needs, by entity."""
    found: dict[str, list[View]] = {}
    for view in declaration.views:
        if view.of_labels:
            found.setdefault(view.entity, []).append(view)
    plans = {}
    for entity, views in found.items():
        if entity not in entities:
            raise Misconfigured(
                f"stream feature view {views[0].name!r} aggregates labels by {entity!r}, which no stream feature view "
                f"aggregates events by; declare one, such as a count, on {declaration.topic!r}"
            )
        if declaration.topic == LABELS:
            raise Misconfigured(f"stream feature view {views[0].name!r} needs labels joined, but they are the events")
        wanted = {contract.event_id, views[0].join_key, *(each.column for view in views for each in view.aggregates)}
        fields = [field for field in contract.schema.fields if field.name in wanted]
        fields += [examples.schema[name] for name in (LABEL, LABEL_TIME, REVISION)]
        if len({field.name for field in fields}) < len(fields):
            raise Misconfigured(f"events have a field of their own called {LABEL!r}; examples need that name")
        topic = f"{EXAMPLES}.{entity}"
        schema = Schema(record_name(declaration.project, topic), tuple(fields))
        plans[entity] = LabelPlan(internal + topic, views[0].join_key, schema, tuple(views))
    return plans


def _topics(declaration: Declaration, contract: Contract, stages: list[StagePlan]) -> tuple[Topic, ...]:
    names = tuple(stage.name for stage in stages)
    topics = [Topic(declaration.topic, contract.key, "producers", (names[0],))]
    if declaration.topic in {SCORED, PREDICTIONS, EXAMPLES, SNAPSHOTS, MEASURES, ALERTS, DEAD_LETTERS, MODELS, SCHEMAS}:
        # Asked to create one topic twice in a request, librdkafka crashes; and the stage would read what it writes.
        raise Misconfigured(f"{declaration.topic!r} is a topic the engine itself writes; read events from another")
    for stage, following in itertools.pairwise(stages):
        topics.append(Topic(stage.output, stage.key_column, stage.name, (following.name,)))
    topics += [Topic(stage.changelog, stage.join_key, stage.name, (stage.name,), "compact") for stage in stages]
    topics += [
        Topic(stage.labels.input, stage.labels.key_column, JOIN, (stage.name,)) for stage in stages if stage.labels
    ]
    last = names[-1]
    if taken := sorted(set(LOOP) & set(names)):
        raise Misconfigured(f"no entity may be called {taken[0]!r}: a stage of the label loop is")
    joined = [
        Topic(LABELS, contract.event_id, "producers", (JOIN,)),
        # One partition: whoever learns from examples needs them in one total order.
        Topic(EXAMPLES, contract.event_id, JOIN, (LEARN, QUALITY, MONITOR), partitions=1),
        Topic(SNAPSHOTS, "model", LEARN, (last,), "compact", 1),
        # One partition too: quality reads it beside the examples.
        Topic(JOIN_CHANGELOG, "partition", JOIN, (QUALITY, "operators"), "compact", 1),
        Topic(QUALITY, "key", QUALITY, ("operators",), "compact", 1),
        Topic(QUALITY_CHANGELOG, "row", QUALITY, (QUALITY,), "compact", 1),
        # One partition: alerts about the whole model need what every partition tells in one order.
        Topic(MEASURES, "partition", MEASURE, (MONITOR,), partitions=1),
        Topic(MEASURE_CHANGELOG, "partition", MEASURE, (MEASURE,), "compact"),
        Topic(MONITOR_CHANGELOG, "stage", MONITOR, (MONITOR,), "compact", 1),
        # The alert that opened an incident names the evidence, which whoever looks into it needs after it has ended.
        Topic(ALERTS, "id", MONITOR, ("subscribers",), "compact", 1, whole_ms=30 * 86_400_000),
        Topic(ALERT_ACTIONS, "id", "operators", ("subscribers",), "compact", 1),
    ]
    return (
        *topics,
        Topic(SCORED, contract.event_id, last, ("offline log", JOIN, MEASURE)),
        Topic(PREDICTIONS, contract.event_id, last, ("consumers",)),
        *([] if declaration.topic == LABELS else joined),
        Topic(DEAD_LETTERS, "id", ", ".join(names), ("operators", MEASURE)),
        Topic(MODELS, "name", "train", (last, MEASURE, MONITOR), "compact", 1),
        Topic(SCHEMAS, "fingerprint", ", ".join(names), ("every reader",), "compact", 1),
    )
