"""The composition root: from settings and feature repo to stages, on whichever log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from millstream.adapters.feast.column_types import with_column_types
from millstream.adapters.feast.compiled_repo import compiled_repo
from millstream.adapters.feast.declared_columns import check_taken, check_topics
from millstream.adapters.feast.repo import check_columns
from millstream.adapters.files.contracts import load_all, load_contract, require_fit
from millstream.adapters.files.monitors_file import load_monitors
from millstream.adapters.kafka.schema_topic import SchemaResolver
from millstream.adapters.kafka.topic_names import topic_names
from millstream.adapters.kafka.topics import BIG_RECORD_BYTES
from millstream.adapters.models.river_pipelines import FILE, OnlineModel, load
from millstream.adapters.models.river_snapshot import signing_key
from millstream.app.agents import load_app, plans
from millstream.app.measuring import measured
from millstream.app.sample_records import sample_records
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.schema import Schema, SchemaId
from millstream.core.contracts import Contract
from millstream.core.declaration import Declaration
from millstream.core.drift.declared import Monitors
from millstream.core.quality.scored_records import ScoredRecords
from millstream.core.requirements import required
from millstream.derivation import derive
from millstream.errors import Misconfigured
from millstream.runtime.clock_bound import ClockBound
from millstream.runtime.dead_letters import DeadLetters
from millstream.runtime.log.records import Records
from millstream.runtime.stage import Stage
from millstream.settings import Settings
from millstream.stages.featurize.step import Featurize
from millstream.stages.featurize.upstream import upstream_of
from millstream.stages.join.contract import examples_schema
from millstream.stages.score.online import Online
from millstream.stages.score.policy import CHAMPION, AnswerPolicy
from millstream.stages.score.step import Carried, Score
from millstream.stages.validate.step import Validate
from millstream.topology import (
    DEAD_LETTERS,
    EXAMPLES,
    PREDICTIONS,
    SCORED,
    LabelPlan,
    StagePlan,
    Topology,
)

if TYPE_CHECKING:
    from millstream.runtime.agents.app import App

Resolve = Callable[[SchemaId], Schema | None]
Writer = Callable[[str, Schema], RecordWriter]
"""Gives the encoder of a topic's records: single-object encoding, or a registry's framing."""


@dataclass(frozen=True)
class Assembly:
    """What the settings' feature repo and contracts amount to."""

    settings: Settings
    declaration: Declaration
    contract: Contract
    contracts: dict[str, Contract]
    topology: Topology
    monitors: Monitors
    agents: App | None = None

    @property
    def schemas(self) -> list[Schema]:
        """Every schema known without asking anybody."""
        return [*(contract.schema for contract in self.contracts.values()), *self.derived.values()]

    @property
    def derived(self) -> dict[str, Schema]:
        """The schema of each topic whose records are more than its contract says, by topic."""
        stages = self.topology.stages
        found = {stage.output: stage.output_schema for stage in stages} | {EXAMPLES: self.examples_schema}
        return found | {stage.labels.input: stage.labels.schema for stage in stages if stage.labels is not None}

    @property
    def examples_schema(self) -> Schema:
        """Of the `examples` topic: the scored record and what became known."""
        return examples_schema(self.topology.stages[-1].output_schema, self.contracts[EXAMPLES])

    def resolver(self) -> SchemaResolver:
        """Return a resolver of the schemas known without asking anybody."""
        return SchemaResolver(self.schemas, None, None)

    def samples(self, plan: StagePlan) -> list[Records]:
        """Return two made-up records of each of a stage's inputs, to compile kernels on before real ones come."""
        found = [sample_records(plan.input, plan.input_schema, self.contract.key if plan.first else plan.join_key)]
        if plan.labels is not None:
            found.append(sample_records(plan.labels.input, plan.labels.schema, plan.labels.key_column))
        return found

    def stage(
        self,
        plan: StagePlan,
        resolve: Resolve,
        carried: Carried | None = None,
        writer: Writer = lambda _topic, schema: RecordWriter(schema),
        largest_letter_bytes: int = BIG_RECORD_BYTES,
        partitions: int = 0,
        bound: ClockBound | None = None,
    ) -> Stage:
        """Build a stage; its stores come with partitions, of which the topics have so many (0: not known)."""
        settings, contract = self.settings, self.contract
        # What a stage before has let through and added features to is not held against the limit again.
        most_bytes = settings.max_record_bytes if plan.first else BIG_RECORD_BYTES
        reader = RecordReader(plan.input_schema, resolve)
        validate = Validate(reader, most_bytes, contract if plan.first else None, partitions=partitions)
        columns = contract.event_id, contract.event_time, plan.feature_time_column
        upstream = upstream_of(self.topology, plan, partitions)
        featurize = Featurize(plan.views, *columns, settings.late_policy, plan.labels, upstream, contract.key)
        labels = self._validate_labels(plan.labels, resolve) if plan.labels is not None else None
        return Stage(
            plan,
            validate,
            featurize,
            self._score(carried) if plan.last else None,
            writer(plan.output, plan.output_schema),
            writer(PREDICTIONS, self.contracts[PREDICTIONS].schema) if plan.last else None,
            writer(DEAD_LETTERS, self.contracts[DEAD_LETTERS].schema),
            largest_letter_bytes,
            labels,
            bound,
        )

    def _validate_labels(self, plan: LabelPlan, resolve: Resolve) -> Validate:
        return Validate(RecordReader(plan.schema, resolve), BIG_RECORD_BYTES, required=required(plan.schema))

    @property
    def policy(self) -> AnswerPolicy:
        """Who answers."""
        return AnswerPolicy(self.settings.answer, self.settings.blend_online_share)

    def _score(self, carried: Carried | None) -> Score:
        settings, service = self.settings, self.declaration.service
        # Whoever wants the online model's answers waits for them; a shadow must not be waited for.
        online = Online(settings.online_budget_ms if settings.answer == CHAMPION else None)
        return Score(service, self.declaration.on_demand, carried, online, self.policy)

    @property
    def online_model_file(self) -> Path:
        """Where the online model is declared; without such a file there is none."""
        return self.settings.online_model or self.settings.feature_repo / FILE

    @property
    def declares_online_model(self) -> bool:
        """Whether there is anything to learn, and with what."""
        return self.topology.joins and self.online_model_file.is_file()

    def online_model(self) -> OnlineModel:
        """Return the declared online model.

        Raises
        ------
        Misconfigured
            Its declaration is wrong, or it is divided by a column that is not scored.
        """
        settings, scored = self.settings, self.topology.stages[-1].output_schema
        if settings.learn_segment is not None and settings.learn_segment not in scored.names:
            raise Misconfigured(
                f"MILLSTREAM_LEARN_SEGMENT: there is no column {settings.learn_segment!r} in {SCORED}; there are: "
                f"{', '.join(scored.names)}"
            )
        return load(
            self.online_model_file,
            self.declaration.service,
            segment=settings.learn_segment,
            max_segments=settings.learn_max_segments,
        )

    def snapshot_key(self) -> bytes:
        """Return the key that the online model's snapshots are signed with; see `signing_key`."""
        configured = self.settings.snapshot_key
        return signing_key(configured.get_secret_value() if configured else None, self.settings.state_dir)

    def validate_examples(self, resolve: Resolve) -> Validate:
        """Return what the stages that read examples begin with."""
        schema = self.examples_schema
        constraints = required(schema, self.contract.event_time)
        return Validate(RecordReader(schema, resolve), BIG_RECORD_BYTES, required=constraints)

    def dead_letters(self, stage: str, writer: Writer, largest_letter_bytes: int = BIG_RECORD_BYTES) -> DeadLetters:
        """Return what makes the dead letters of a stage."""
        return DeadLetters(stage, writer(DEAD_LETTERS, self.contracts[DEAD_LETTERS].schema), largest_letter_bytes)

    @property
    def measured(self) -> ScoredRecords:
        """How scored records are read for quality.

        Raises
        ------
        Misconfigured
            Naming the setting that is wrong.
        """
        scored = self.topology.stages[-1].output_schema
        return measured(self.settings, self.declaration.service, self.contract, scored)


def assemble(settings: Settings) -> Assembly:
    """Compile the feature repo, load the contracts and derive the topology.

    Raises
    ------
    Misconfigured
        Naming the declaration, contract, column or monitor that does not fit.
    """
    declaration = compiled_repo(settings).declaration
    contracts = load_all(settings)
    contract = load_contract(settings, declaration.topic)
    require_fit(settings, contracts, declaration.topic)
    check_columns(declaration, contract)
    declaration = with_column_types(declaration, contract)
    check_taken(declaration, contract, contracts[SCORED])
    names = topic_names(settings)
    topology = derive(declaration, contract, contracts[SCORED], contracts[EXAMPLES], names.internal)
    check_topics(topology)
    monitors = load_monitors(settings.feature_repo, [name for name, _ in declaration.service.features])
    assembly = Assembly(settings, declaration, contract, contracts, topology, monitors)
    if (app := load_app(settings)) is not None:
        declared_agents = plans(app, topology, contracts, assembly.derived, names.internal)
        topology = topology.with_agents(declared_agents, contracts, list(app.topics_by_name))
        assembly = replace(assembly, topology=topology, agents=app)
    if topology.joins:
        _ = assembly.examples_schema  # events may have a field that examples need
    return assembly
