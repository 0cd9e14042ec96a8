"""Feast's local compute engine, for views whose aggregations are computed already: what ``batch_engine`` names.

Feast's own would compute a view's aggregations again, which its local engine refuses for windows. Here a view's batch
source is the offline log, which holds the features as they were served. Feast imports this module.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from feast.infra.compute_engines.local import compute
from feast.infra.compute_engines.local.job import LocalMaterializationJob

_CLASS = "millstream.adapters.feast.compute_engine.ServedRowsComputeEngine"


class ServedRowsComputeEngineConfig(compute.LocalComputeEngineConfig):
    """Settings under ``batch_engine`` in feature_store.yaml; there are none."""

    type: Literal[_CLASS] = _CLASS  # type: ignore[valid-type] # one name per class is Feast's convention


class ServedRowsComputeEngine(compute.LocalComputeEngine):
    """Materializes stream views from the rows of their batch source as they are."""

    def __init__(self, type: str = _CLASS, **settings: Any) -> None:
        super().__init__(**settings)

    def _materialize_one(self, registry: Any, task: Any, **options: Any) -> LocalMaterializationJob:
        view = task.feature_view
        if getattr(view, "aggregations", None):
            computed = object.__new__(view.__class__)
            computed.__dict__.update(view.__dict__, aggregations=[])
            task = replace(task, feature_view=computed)
        return super()._materialize_one(registry, task, **options)
