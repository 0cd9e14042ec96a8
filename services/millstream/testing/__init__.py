"""Run a project in memory: events in; features, predictions and dead letters out, without a server.

Examples
--------
In a project that `millstream new` wrote::

    from millstream.testing import replay

    run = replay([{"id": "e1", "device_id": "d1", "event_time_ms": 1_767_225_600_000, "value": 10.0}])
    assert run.scored[0]["decision"] == "accept"

What must not change anything does not::

    assert replay(rows, seed=1, crashes=3, rebalances=2, batch_records=7) == replay(rows, batch_records=7)
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millstream.errors import Misconfigured

if TYPE_CHECKING:
    from millstream.app.assembly import Assembly
    from millstream.app.training import Model
    from millstream.core.batch import Batch
    from millstream.runtime.log.memory_log import MemoryBroker
    from millstream.testing.arrivals import Arrivals

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of the events: the records of committed transactions.

    Parameters
    ----------
    scored : list of dict
        Records of the topic `scored`, in the order of ``rows``: the event's fields, score and decision, and each
        feature as ``{view}__{feature}``. Times are in milliseconds since the epoch.
    dead_letters : list of dict
        Records of the topic `dead-letters`.
    predictions : list of dict
        Records of the topic `predictions`, in the order of ``rows``.
    """

    scored: list[Row]
    dead_letters: list[Row]
    predictions: list[Row]


def replay(
    rows: Sequence[Mapping[str, Any]],
    project: Path | None = None,
    *,
    model: str | int | Model = "none",
    seed: int = 0,
    disorder_ms: int = 0,
    duplicates: float = 0.0,
    crashes: int = 0,
    rebalances: int = 0,
    batch_records: int = 100,
    partitions: int = 1,
) -> Replayed:
    """Run events through the project's stages in memory, on a clock that follows the events' times.

    The same arguments give the same result. Crashes and rebalances change nothing in it, whatever their moments:
    `replay` with them equals `replay` without. A duplicate of an event within its duplicate horizon changes no
    feature, prediction or dead letter. With disorder, features are of the events that have arrived by then, and events
    that are late are dead letters.

    Features made of labels are null: no label is known.

    Parameters
    ----------
    rows : sequence of mapping
        Events in order, each by the names of the contract's fields.
    project : Path, optional
        The project's folder, or one below it; default: the working directory.
    model : str, int or Model
        ``champion``, a version, or ``none`` for the declared rule.
    seed : int
        Of everything that follows.
    disorder_ms : int
        Each event arrives up to so many milliseconds after its event time.
    duplicates : float
        Share of the events that arrive a second time, up to a minute or ``disorder_ms`` later.
    crashes : int
        How often a worker is killed, before or after one of its transactions is committed, and started again.
    rebalances : int
        How often partitions are assigned again among two workers, between transactions or amid one, which is aborted.
    batch_records : int
        Largest micro-batch; one transaction each.
    partitions : int
        Of the topics. With several, a second stage reads events of different partitions in an order that is not fixed,
        as it does live, so that crashes and rebalances may change features of its entity.

    Returns
    -------
    Replayed

    Raises
    ------
    Misconfigured
        The project is wrong, a row cannot be read as an event, or an argument is out of range.
    """
    from millstream.app.project import open as open_project
    from millstream.app.project.offline import version_text
    from millstream.app.replay_file import load_champion
    from millstream.app.replaying import replay_stages
    from millstream.testing.arrivals import arrivals
    from millstream.testing.faults import Faults
    from millstream.testing.workers import Workers, broker_for

    _require(duplicates=(duplicates, 1), disorder_ms=(disorder_ms, 1 << 40), crashes=(crashes, 1 << 20))
    _require(rebalances=(rebalances, 1 << 20))
    _require(1, batch_records=(batch_records, 1 << 20), partitions=(partitions, 1 << 10))
    if not rows:
        return Replayed([], [], [])
    assembly = open_project(project).assembly
    champion = load_champion(assembly.settings, assembly, version_text(model))
    events = _events(assembly, rows)
    given = arrivals(assembly, events, random.Random(seed), disorder_ms, duplicates)

    def run(faults: Faults) -> MemoryBroker:
        broker = broker_for(assembly.topology, partitions)
        workers = Workers(
            broker,
            lambda: replay_stages(assembly, champion, partitions),
            partitions,
            2 if rebalances else 1,
            faults,
            batch_records,
            random.Random(seed),
        )
        for output in given.outputs(assembly.declaration.topic, batch_records):
            broker.now_ms = max(broker.now_ms, *(output.timestamps_ms or ()))
            workers.run([output])
        return broker

    calm = Faults({})
    broker = run(calm)
    if crashes or rebalances:
        broker = run(Faults.drawn(calm.transactions, crashes, rebalances, random.Random(seed)))
    return _replayed(assembly, broker, given)


def _require(least: int = 0, **given: tuple[float, float]) -> None:
    for name, (value, most) in given.items():
        if not least <= value <= most:
            raise Misconfigured(f"{name} is {value}; allowed: {least} to {most}")


def _events(assembly: Assembly, rows: Sequence[Mapping[str, Any]]) -> Batch:
    from millstream.adapters.files.ingest import BadRow
    from millstream.app.event_file import events_of
    from millstream.app.tables import files_of
    from millstream.core.batch import joined

    bad: list[BadRow] = []
    with files_of(rows=rows) as (file,):
        assert file is not None
        batch = joined([each for each, _, _ in events_of(assembly, file, {}, fault=bad.append)])
    if bad:
        lines = [f"row {each.row}, {each.field}: {each.detail}" for each in bad]
        raise Misconfigured("rows cannot be read as events:\n  " + "\n  ".join(lines))
    return batch


def _replayed(assembly: Assembly, broker: MemoryBroker, given: Arrivals) -> Replayed:
    from millstream.core.avro.decode import RecordReader
    from millstream.runtime.agents.stage import rows_of
    from millstream.topology import DEAD_LETTERS, PREDICTIONS, SCORED

    def found(topic: str) -> list[Row]:
        schema = assembly.derived.get(topic) or assembly.contracts[topic].schema
        values = [value for part in broker.log(topic) for _, _, value in part.entries]
        batch = RecordReader(schema, assembly.resolver()).decode(values, 1 << 40).batch
        return rows_of(batch, schema.names)

    event_id, position = assembly.contract.event_id, given.by_id
    return Replayed(
        sorted(found(SCORED), key=lambda row: position[str(row[event_id])]),
        sorted(found(DEAD_LETTERS), key=itemgetter("failed_at_ms", "topic", "partition", "offset")),
        sorted(found(PREDICTIONS), key=lambda row: position[row["event_id"]]),
    )
