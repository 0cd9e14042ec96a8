"""Compares state with the undisturbed run's: changelogs, and what Feast reads online."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from millstream.adapters.feast.repo import open_store
from millstream.app.assembly import Assembly
from millstream.runtime.clock_bound import REFUSED_PREFIX
from millstream.runtime.log.protocol import LogReader
from millstream.runtime.recovery import MARKER_KEY, recover
from millstream.runtime.stage import Stage
from millstream.settings import Settings
from millstream.topology import StagePlan
from millstream_lab.chaos.checker import NOTHING
from millstream_lab.chaos.oracle import ReferenceRun

_SHOWN = 5


class GroupLog(LogReader, Protocol):
    """A log that also knows how far a stage's group has committed."""

    def committed(self, topic: str, partitions: Sequence[int]) -> dict[int, int | None]:
        """Return the group's offset for each partition; None where it never committed."""


def check_state(plan: StagePlan, expected: ReferenceRun, fresh: Stage, log: GroupLog) -> list[str]:
    """Recover every partition from its changelog: nothing to replay after a clean stop, and the same rows."""
    wrong = []
    compared = 0
    stores = expected.stage.featurize.stores
    committed = {topic: log.committed(topic, sorted(stores)) for topic in plan.inputs}
    for partition, store in stores.items():
        try:
            recovered = recover(
                fresh,
                log,
                partition,
                {topic: found[partition] for topic, found in committed.items()},
                lambda _words: None,
            )
        except ValueError as damage:
            wrong.append(f"{plan.name}[{partition}]: the state cannot be recovered: {damage}")
        else:
            if recovered.replayed:
                wrong.append(f"{plan.name}[{partition}]: {recovered.replayed} records were replayed after a clean stop")
        store.expire()
        theirs = {key: value for key, value in store.dirty_rows() if value is not None}
        ours = _changelog_rows(plan, log, partition)
        for title, keys in (("is missing", theirs.keys() - ours.keys()), ("is too many", ours.keys() - theirs.keys())):
            wrong += [f"{plan.name}[{partition}]: row {key!r} {title}" for key in sorted(keys)[:_SHOWN]]
        compared += len(theirs.keys() & ours.keys())
        other = [key for key in theirs.keys() & ours.keys() if theirs[key] != ours[key]]
        wrong += [f"{plan.name}[{partition}]: row {key!r} differs" for key in sorted(other)[:_SHOWN]]
    return wrong if compared else [*wrong, f"{plan.name}: {NOTHING}"]


def _changelog_rows(plan: StagePlan, log: LogReader, partition: int) -> dict[bytes, bytes]:
    rows: dict[bytes, bytes] = {}
    for records in log.read(plan.changelog, partition, 0, None):
        for key, value in zip(records.keys, records.values, strict=True):
            if key is None or key == MARKER_KEY or key.startswith(REFUSED_PREFIX):
                continue
            if value is None:
                rows.pop(key[1:], None)
            else:
                rows[key[1:]] = value
    return rows


def check_online(settings: Settings, assembly: Assembly, plan: StagePlan, expected: ReferenceRun) -> list[str]:
    """Read every key through Feast and compare with the undisturbed run's newest features, exactly."""
    store = open_store(settings)
    wrong: list[str] = []
    compared = 0
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
                    compared += int(np.count_nonzero(~np.isnan(rows.features[:, at])))
                    wrong += [
                        f"{view.name} of {keys[row]}: {aggregate.feature} is {found[row]} online, should be {value}"
                        for row, value in enumerate(rows.features[:, at].tolist())
                        if not _same(found[row], value)
                    ]
    return wrong if compared else [*wrong, f"{plan.name}: {NOTHING}"]


def _same(found: Any, wanted: float) -> bool:
    return found is None if np.isnan(wanted) else found is not None and float(found) == wanted
