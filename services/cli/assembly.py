"""The composition root: from settings and feature repo to stages, on whichever log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from services.adapters.contracts import load_all, load_contract
from services.adapters.feature_repo import check_columns, load_declaration
from services.adapters.schema_topic import SchemaResolver
from services.adapters.topics import BIG_RECORD_BYTES
from services.core.avro.decode import RecordReader
from services.core.avro.encode import RecordWriter
from services.core.avro.schema import Schema, SchemaId
from services.core.batch import Array, Batch
from services.core.contracts import Contract
from services.core.declaration import Declaration
from services.core.text import as_text
from services.featurize.step import Featurize
from services.score.step import Carried, Score
from services.settings import Settings
from services.topology import DEAD_LETTERS, PREDICTIONS, SCORED, StagePlan, Topology, derive
from services.transport.records import Records
from services.transport.stage import Stage
from services.validate.step import Validate

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

    @property
    def schemas(self) -> list[Schema]:
        """Every schema known without asking anybody."""
        return [*(c.schema for c in self.contracts.values()), *(stage.output_schema for stage in self.topology.stages)]

    def resolver(self) -> SchemaResolver:
        """Return a resolver of the schemas known without asking anybody."""
        return SchemaResolver(self.schemas, None, None)

    def sample(self, plan: StagePlan) -> Records:
        """Return two made-up records of a stage's input, to compile kernels on before real ones come."""
        made: dict[str, Array] = {}
        for field in plan.input_schema.fields:
            if field.kind in {"int", "long"}:
                made[field.name] = np.array([1, 2])
            elif field.kind in {"float", "double"}:
                made[field.name] = np.array([1.0, 2.0])
            elif field.kind == "boolean":
                made[field.name] = np.array([False, True])
            else:
                made[field.name] = np.array(
                    [b"" if field.kind == "bytes" else field.symbols[0] if field.symbols else "a"] * 2, dtype=object
                )
        keys = as_text(made[self.contract.key if plan.first else plan.join_key])
        two = np.array([-1, -1])
        values = RecordWriter(plan.input_schema).encode(Batch(2, made))
        return Records(plan.input, two, np.array([0, 1]), np.array([1, 2]), keys, values)

    def stage(
        self,
        plan: StagePlan,
        resolve: Resolve,
        carried: Carried | None = None,
        writer: Writer = lambda _topic, schema: RecordWriter(schema),
        largest_letter_bytes: int = BIG_RECORD_BYTES,
    ) -> Stage:
        """Build a stage; its stores come with partitions."""
        settings, contract = self.settings, self.contract
        # What a stage before has let through and added features to is not held against the limit again.
        most_bytes = settings.max_record_bytes if plan.first else BIG_RECORD_BYTES
        validate = Validate(RecordReader(plan.input_schema, resolve), most_bytes, contract if plan.first else None)
        featurize = Featurize(
            plan.views, contract.event_id, contract.event_time, plan.feature_time_column, settings.late_policy
        )
        score = Score(self.declaration.service, self.declaration.on_demand, carried) if plan.last else None
        return Stage(
            plan,
            validate,
            featurize,
            score,
            writer(plan.output, plan.output_schema),
            writer(PREDICTIONS, self.contracts[PREDICTIONS].schema) if plan.last else None,
            writer(DEAD_LETTERS, self.contracts[DEAD_LETTERS].schema),
            largest_letter_bytes,
        )


def assemble(settings: Settings) -> Assembly:
    """Compile the feature repo, load the contracts and derive the topology.

    Raises
    ------
    Misconfigured
        Naming the declaration, contract or column that does not fit.
    """
    declaration = load_declaration(settings)
    contracts = load_all(settings)
    contract = load_contract(settings, declaration.topic)
    check_columns(declaration, contract)
    topology = derive(declaration, contract, contracts[SCORED])
    return Assembly(settings, declaration, contract, contracts, topology)
