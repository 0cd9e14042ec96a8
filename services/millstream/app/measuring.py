"""From settings to how quality is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from millstream.core.avro.schema import Schema
from millstream.core.batch import Batch
from millstream.core.contracts import Contract
from millstream.core.declaration import Service
from millstream.core.quality.board import PredictionGroup, predictions
from millstream.core.quality.part import PredictionCounts
from millstream.core.quality.scored_records import ScoredRecords
from millstream.errors import Misconfigured
from millstream.settings import Settings
from millstream.stages.quality.state import MeasuredConfiguration


def measured(settings: Settings, service: Service, contract: Contract, scored: Schema) -> ScoredRecords:
    """Return how scored records are read.

    Raises
    ------
    Misconfigured
        Naming the setting and the column that is not there, or not of a kind that can be told apart.
    """
    investigated = settings.quality_investigated or contract.key
    kinds = {field.name: field.kind for field in scored.fields}
    allowed = sorted(name for name, kind in kinds.items() if kind in {"int", "long", "boolean", "string", "enum"})
    for name, column in (("INVESTIGATED", investigated), ("GROUP", settings.quality_group)):
        if column and column not in allowed:
            found = f"a {kinds[column]}" if column in kinds else "no column of the scored record"
            raise Misconfigured(f"MILLSTREAM_QUALITY_{name} is {column!r}, {found}; allowed are: {', '.join(allowed)}")
    positive = service.tags.get("decision_above", "positive")
    return ScoredRecords(
        contract.event_time,
        service.name,
        positive,
        service.threshold,
        investigated,
        settings.quality_group,
        settings.blend_online_share,
    )


def counted(how: ScoredRecords) -> Callable[[Batch], Mapping[PredictionGroup, PredictionCounts]]:
    """Return what counts predictions by who answered."""
    return lambda scored: predictions(scored.columns[how.event_time], how.groups(scored), how.contenders(scored))


def declared(settings: Settings, how: ScoredRecords) -> MeasuredConfiguration:
    """Return what figures are of.

    Raises
    ------
    Misconfigured
        The maturities are no list of days.
    """
    try:
        ages = {int(each) for each in settings.quality_maturities_days.split(",") if each.strip()}
    except ValueError as error:
        raise Misconfigured(f"MILLSTREAM_QUALITY_MATURITIES_DAYS: {error}; give days, e.g. 7, 30, 90") from error
    horizon = settings.label_horizon_days
    maturities = (*sorted(age for age in ages if 0 < age < horizon), horizon)
    return MeasuredConfiguration(maturities, how.investigated, how.group, settings.quality_top_k, how.online_share)
