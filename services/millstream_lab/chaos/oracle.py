"""The undisturbed run: the same stages over the same input, in one process, with nothing going wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from millstream.app.assembly import Assembly, Resolve
from millstream.core.batch import Array, Batch, Mask
from millstream.runtime.log.records import Records
from millstream.runtime.stage import Stage
from millstream.stages.score.scorer import Champion
from millstream.stages.score.step import Score
from millstream.topology import StagePlan
from millstream_lab.chaos.history import Ids, place_ids

CHUNK_RECORDS = 20_000
ANSWER = ("score", "arm", "model", "model_version", "decision")


@dataclass
class ReferenceRun:
    """What a stage's input amounts to.

    Parameters
    ----------
    stage : Stage
        Its stores are as they are after the last record.
    ids : int64 ndarray of shape (n,)
        Place of the input record of each row of ``columns``.
    columns : dict of str to ndarray of shape (n,)
        Features and everything carried; nulls are in ``nulls``.
    rejected : dict of int to str
        Reason by place.
    dropped : int64 ndarray
        Places of duplicates, which have no outcome.
    answers : dict of int to dict of str to ndarray
        For a stage that scores: the answer columns by model version, 0 being the declared rule's.
    """

    stage: Stage
    ids: Ids
    columns: dict[str, Array]
    nulls: dict[str, Mask]
    rejected: dict[int, str]
    dropped: Ids
    answers: dict[int, dict[str, Array]] = field(default_factory=dict)


def run_undisturbed(
    assembly: Assembly,
    plan: StagePlan,
    resolve: Resolve,
    records: Records,
    champions: Sequence[Champion | None] = (),
    partitions: int = 0,
) -> ReferenceRun:
    """Fold a stage's whole input and keep what comes of it.

    Parameters
    ----------
    champions : sequence of Champion or None
        Whose answers are wanted; None stands for the declared rule.
    partitions : int
        Of the event topic, as the workers know it: what later stages retain depends on it.
    """
    stage = assembly.stage(plan, resolve, partitions=partitions)
    scorers = _scorers(assembly, plan, resolve, champions)
    ids: list[Ids] = []
    batches: list[Batch] = []
    dropped: list[Ids] = []
    rejected: dict[int, str] = {}
    answers: dict[int, list[dict[str, Array]]] = {}
    for partition in np.unique(records.partitions).tolist():
        stage.featurize.stores[partition] = stage.featurize.new_store()
        mine = records.take(np.flatnonzero(records.partitions == partition))
        for chunk in mine.chunks(CHUNK_RECORDS):
            flow, _ = stage.apply(chunk)
            featurized = flow
            for version, score in scorers.items():
                flow = score(featurized, 0)
                answers.setdefault(version, []).append({name: flow.batch.columns[name] for name in ANSWER})
            places = place_ids(chunk.partitions, chunk.offsets)
            for rejection in flow.rejections:
                rejected[int(places[rejection.row])] = rejection.reason
            gone = np.ones(len(chunk), dtype=np.bool_)
            gone[flow.rows] = False
            gone[[rejection.row for rejection in flow.rejections]] = False
            dropped.append(places[gone])
            ids.append(places[flow.rows])
            batches.append(flow.batch)
    names = list(batches[0].columns) if batches else []
    nothing = np.zeros(0, dtype=np.int64)
    return ReferenceRun(
        stage,
        np.concatenate(ids) if ids else nothing,
        {name: np.concatenate([b.columns[name] for b in batches]) for name in names},
        {
            name: np.concatenate([b.nulls.get(name, np.zeros(b.length, dtype=np.bool_)) for b in batches])
            for name in names
        },
        rejected,
        np.concatenate(dropped) if dropped else nothing,
        {v: {name: np.concatenate([p[name] for p in parts]) for name in ANSWER} for v, parts in answers.items()},
    )


def _scorers(
    assembly: Assembly, plan: StagePlan, resolve: Resolve, champions: Sequence[Champion | None]
) -> dict[int, Score]:
    """Return the last step of a stage under each model, by version; 0 is the declared rule."""
    scorers = {}
    for champion in champions if plan.last else ():
        score = assembly.stage(plan, resolve).score
        assert isinstance(score, Score)
        if champion is not None:
            score.swap(champion)
        scorers[0 if champion is None else champion.version] = score
    return scorers
