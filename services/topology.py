"""Every topic and stage as a value, derived from the feature repo and the event contract, in path order.

One hop per entity: each entity's state lives in exactly one partition, and features ride along in the event to the
next hop, so the score sees every entity's features, the current event included, without reading Redis.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

from services.core.avro.schema import Field, Schema
from services.core.avro.schema_field import Kind
from services.core.contracts import Contract
from services.core.declaration import Declaration, FeatureType, View
from services.errors import Misconfigured

SCORED = "scored"
PREDICTIONS = "predictions"
DEAD_LETTERS = "dead-letters"
MODELS = "models"
SCHEMAS = "schemas"
LABELS = "labels"
EXAMPLES = "examples"
JOIN = "join"
JOIN_CHANGELOG = "join.changelog"
LEARN = "learn"
SNAPSHOTS = "snapshots"

Cleanup = Literal["delete", "compact"]


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic: its name, what keys it, who writes and who reads it.

    ``partitions`` is None where the operator's setting decides; then it must be the same for all of them.
    """

    name: str
    key: str
    writer: str
    readers: tuple[str, ...]
    cleanup: Cleanup = "delete"
    partitions: int | None = None


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
        All views of the entity.
    first, last : bool
        The first validates against the contract, the last scores.
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

    @property
    def changelog(self) -> str:
        """The compacted topic that holds this stage's window state."""
        return f"{self.name}.changelog"

    @property
    def feature_time_column(self) -> str:
        """The column with the entity's feature timestamp, microseconds since the epoch."""
        return f"{self.name}__feature_time_us"


@dataclass(frozen=True, slots=True)
class Topology:
    """All stages in path order, and all topics."""

    project: str
    stages: tuple[StagePlan, ...]
    topics: tuple[Topic, ...]

    @property
    def joins(self) -> bool:
        """Whether labels are joined with predictions; not where labels are the events themselves."""
        return self.stages[0].input != LABELS

    @property
    def names(self) -> tuple[str, ...]:
        """What ``millstream run`` can be told to run, in path order."""
        return tuple(stage.name for stage in self.stages) + ((JOIN, LEARN) if self.joins else ())

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


def derive(declaration: Declaration, contract: Contract, envelope: Contract) -> Topology:
    """Derive stages and topics.

    Parameters
    ----------
    declaration : Declaration
        The compiled feature repo.
    contract : Contract
        Of ``declaration.topic``.
    envelope : Contract
        ``schemas/scored.avsc``: the fields of `SCORED` besides the event's and the features'.

    Raises
    ------
    Misconfigured
        If no entity is keyed like the event topic, so that the first stage would see a key in several partitions.
    """
    entities: dict[str, list[View]] = {}
    for view in declaration.views:
        entities.setdefault(view.entity, []).append(view)
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
        carried += [
            feature_field(column, aggregate.dtype)
            for view in views
            for column, aggregate in zip(view.columns, view.aggregates, strict=True)
        ]
        if last:
            output = SCORED
            key_column = contract.event_id
            given = [(view.name, view.outputs) for view in declaration.on_demand]
            given += [(view.name, view.features) for view in declaration.batch]
            carried += [feature_field(f"{view}__{name}", dtype) for view, outputs in given for name, dtype in outputs]
            present = {field.name for field in carried}
            carried += [field for field in envelope.schema.fields if field.name not in present]
        else:
            following = ordered[position + 1][0]
            output = f"{declaration.topic}.{following}"
            key_column = ordered[position + 1][1][0].join_key
        outgoing = Schema(f"{declaration.project}.{output.replace('.', '_').replace('-', '_')}", tuple(carried))
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
            )
        )
        incoming, topic = outgoing, output
    return Topology(declaration.project, tuple(stages), _topics(declaration, contract, stages))


def _topics(declaration: Declaration, contract: Contract, stages: list[StagePlan]) -> tuple[Topic, ...]:
    names = tuple(stage.name for stage in stages)
    topics = [Topic(declaration.topic, contract.key, "producers", (names[0],))]
    if declaration.topic in {SCORED, PREDICTIONS, EXAMPLES, SNAPSHOTS, DEAD_LETTERS, MODELS, SCHEMAS}:
        # Asked to create one topic twice in a request, librdkafka crashes; and the stage would read what it writes.
        raise Misconfigured(f"{declaration.topic!r} is a topic the engine itself writes; read events from another")
    for stage, following in itertools.pairwise(stages):
        topics.append(Topic(stage.output, stage.key_column, stage.name, (following.name,)))
    topics += [Topic(stage.changelog, stage.join_key, stage.name, (stage.name,), "compact") for stage in stages]
    last = names[-1]
    if {JOIN, LEARN} & set(names):
        raise Misconfigured(f"no entity may be called {JOIN!r} or {LEARN!r}: the stages of the label loop are")
    joined = [
        Topic(LABELS, contract.event_id, "producers", (JOIN,)),
        # One partition: whoever learns from examples needs them in one total order.
        Topic(EXAMPLES, contract.event_id, JOIN, (LEARN,), partitions=1),
        Topic(SNAPSHOTS, "model", LEARN, (last,), "compact", 1),
        Topic(JOIN_CHANGELOG, "partition", JOIN, ("operators",), "compact"),
    ]
    return (
        *topics,
        Topic(SCORED, contract.event_id, last, ("offline log", JOIN)),
        Topic(PREDICTIONS, contract.event_id, last, ("consumers",)),
        *([] if declaration.topic == LABELS else joined),
        Topic(DEAD_LETTERS, "id", ", ".join(names), ("operators",)),
        Topic(MODELS, "name", "train", (last,), "compact", 1),
        Topic(SCHEMAS, "fingerprint", ", ".join(names), ("every reader",), "compact", 1),
    )
