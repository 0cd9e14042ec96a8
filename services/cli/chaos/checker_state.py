"""Compares state with the undisturbed run's: changelogs, and what Feast reads online."""

from __future__ import annotations

from typing import Any

import numpy as np

from services.adapters.feature_repo import open_store
from services.cli.assembly import Assembly
from services.cli.chaos.oracle import Undisturbed
from services.settings import Settings
from services.topology import StagePlan
from services.transport.kafka_reader import KafkaReader
from services.transport.recovery import recover
from services.transport.stage import Stage

_SHOWN = 5


def check_state(plan: StagePlan, expected: Undisturbed, fresh: Stage, log: KafkaReader) -> list[str]:
    """Recover every partition from its changelog: nothing to replay after a clean stop, and the same rows."""
    wrong = []
    stores = expected.stage.featurize.stores
    committed = log.committed(plan.input, sorted(stores))
    for partition, store in stores.items():
        recovered = recover(fresh, log, partition, committed[partition], 10_000, lambda _words: None)
        if recovered.replayed:
            wrong.append(f"{plan.name}[{partition}]: {recovered.replayed} records were replayed after a clean stop")
        store.expire()
        theirs = {key: value for key, value in store.dirty_rows() if value is not None}
        ours = _changelog_rows(plan, log, partition)
        for title, keys in (("is missing", theirs.keys() - ours.keys()), ("is too many", ours.keys() - theirs.keys())):
            wrong += [f"{plan.name}[{partition}]: row {key!r} {title}" for key in sorted(keys)[:_SHOWN]]
        other = [key for key in theirs.keys() & ours.keys() if theirs[key] != ours[key]]
        wrong += [f"{plan.name}[{partition}]: row {key!r} differs" for key in sorted(other)[:_SHOWN]]
    return wrong


def _changelog_rows(plan: StagePlan, log: KafkaReader, partition: int) -> dict[bytes, bytes]:
    from services.transport.recovery import MARKER_KEY

    rows: dict[bytes, bytes] = {}
    for records in log.read(plan.changelog, partition, 0, None):
        for key, value in zip(records.keys, records.values, strict=True):
            if key is None or key == MARKER_KEY:
                continue
            if value is None:
                rows.pop(key[1:], None)
            else:
                rows[key[1:]] = value
    return rows


def check_online(settings: Settings, assembly: Assembly, plan: StagePlan, expected: Undisturbed) -> list[str]:
    """Read every key through Feast and compare with the undisturbed run's newest features, exactly."""
    store = open_store(settings)
    wrong: list[str] = []
    for view in plan.views:
        names = [f"{view.name}:{aggregate.feature}" for aggregate in view.aggregates]
        for windows in expected.stage.featurize.stores.values():
            for rows in expected.stage.featurize.online(windows, windows.all_slots()):
                if rows.view != view.name:
                    continue
                keys = rows.keys.tolist()
                online = store.get_online_features(names, [{view.join_key: key} for key in keys]).to_dict()
                for at, aggregate in enumerate(view.aggregates):
                    found = online[aggregate.feature]
                    wrong += [
                        f"{view.name} of {keys[row]}: {aggregate.feature} is {found[row]} online, should be {value}"
                        for row, value in enumerate(rows.features[:, at].tolist())
                        if not _same(found[row], value)
                    ]
    return wrong


def _same(found: Any, wanted: float) -> bool:
    return found is None if np.isnan(wanted) else found is not None and float(found) == wanted
