"""From feature repo and event contract to stages and topics: one stage per entity, each keyed by it.

Each entity's state lies in one partition. Features are added to the event and go with it to the next stage, so that the
last one scores with the features of every entity, the current event included, without reading Redis.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from millstream.core.avro.schema import Field, Schema
from millstream.core.avro.schema_field import Kind
from millstream.core.avro.schema_type import as_name
from millstream.core.contracts import Contract
from millstream.core.declaration import Declaration, FeatureType, View
from millstream.errors import Misconfigured
from millstream.topology import (
    ALERT_ACTIONS,
    ALERTS,
    DEAD_LETTERS,
    EXAMPLES,
    JOIN,
    JOIN_CHANGELOG,
    LABEL,
    LABEL_TIME,
    LABELS,
    LEARN,
    LOOP,
    MEASURE,
    MEASURE_CHANGELOG,
    MEASURES,
    MODELS,
    MONITOR,
    MONITOR_CHANGELOG,
    PREDICTIONS,
    QUALITY,
    QUALITY_CHANGELOG,
    REVISION,
    SCHEMAS,
    SCORED,
    SNAPSHOTS,
    LabelPlan,
    StagePlan,
    Topic,
    Topology,
)


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
