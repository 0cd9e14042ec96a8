"""The composition root: from settings and feature repo to stages, on whichever log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from services.adapters.contracts import load_all, load_contract
from services.adapters.feature_repo import check_columns, load_declaration
from services.adapters.schema_topic import SchemaResolver
from services.core.contracts import Contract
from services.core.declaration import Declaration
from services.core.decode import RecordReader
from services.core.encode import RecordWriter
from services.core.schema import Schema, SchemaId
from services.featurize.step import Featurize
from services.score.step import Carried, Score
from services.settings import Settings
from services.topology import DEAD_LETTERS, PREDICTIONS, SCORED, StagePlan, Topology, derive
from services.transport.stage import Stage
from services.validate.step import Validate

Resolve = Callable[[SchemaId], Schema | None]


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

    def stage(self, plan: StagePlan, resolve: Resolve, carried: Carried | None = None) -> Stage:
        """Build a stage; its stores come with partitions."""
        settings, contract = self.settings, self.contract
        validate = Validate(
            RecordReader(plan.input_schema, resolve), settings.max_record_bytes, contract if plan.first else None
        )
        featurize = Featurize(
            plan.views, contract.event_id, contract.event_time, plan.feature_time_column, settings.late_policy
        )
        score = Score(self.declaration.service, self.declaration.on_demand, carried) if plan.last else None
        return Stage(
            plan,
            validate,
            featurize,
            score,
            RecordWriter(plan.output_schema),
            RecordWriter(self.contracts[PREDICTIONS].schema) if plan.last else None,
            RecordWriter(self.contracts[DEAD_LETTERS].schema),
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
