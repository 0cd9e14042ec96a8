"""Compares what the topics hold with the undisturbed run, in the manner of Jepsen and of Kafka Streams' tests.

Each check returns sentences about what is wrong; none means the invariant holds. A check that had nothing to look at
says so: that is a finding as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from millstream.core.batch import Array, Batch, Mask
from millstream.runtime.dead_letters import LATE
from millstream.topology import PREDICTIONS, SCORED, StagePlan
from millstream_lab.chaos.history import History, Ids, Table, place_ids
from millstream_lab.chaos.oracle import ANSWER, ReferenceRun

# Each model's scores and the threshold depend on when it was swapped in.
_CONTENDERS = ("champion_score", "champion_version", "online_score", "online_version", "threshold")
_STAMPS = frozenset({"scored_at_ms", *ANSWER})
_SHOWN = 5
NOTHING = "there was nothing to look at"


def source_ids(table: Table) -> Ids:
    """Return the place in the event topic that each row came from."""
    columns = table.batch.columns
    return place_ids(columns["source_partition"], columns["source_offset"])


def check_outcomes(plan: StagePlan, expected: ReferenceRun, history: History) -> dict[str, list[str]]:
    """Hold a stage's outputs and dead letters against its input: lost, doubled, without input."""
    rejected_ids, reasons = dead_letters_of(plan, history)
    rejected = np.array(sorted(expected.rejected), dtype=np.int64)
    findings: dict[str, list[str]] = {"lost": [], "doubled": [], "outcome without input": [], "wrong reason": []}
    for what, wanted, found in (
        ("answer", expected.ids, hop_ids(plan, history.outputs[plan.output], history)),
        ("dead letter", rejected, rejected_ids),
    ):
        distinct, counts = np.unique(found, return_counts=True)
        for title, ids in (
            ("lost", np.setdiff1d(wanted, distinct)),
            ("doubled", distinct[counts > 1]),
            ("outcome without input", np.setdiff1d(distinct, wanted)),
        ):
            findings[title] += [f"{plan.name}: {what} of {plan.input}{place_text(each)}" for each in ids.tolist()]
    for place, reason in zip(rejected_ids.tolist(), reasons, strict=True):
        wanted_reason = expected.rejected.get(place, reason)
        if reason != wanted_reason:
            findings["wrong reason"].append(f"{plan.input}{place_text(place)}: {reason}, should be {wanted_reason}")
    return findings


def dead_letters_of(plan: StagePlan, history: History) -> tuple[Ids, list[str]]:
    """Return the input places of a stage's dead letters, and their reasons."""
    dead = history.dead_letters.batch.columns
    mine = dead["topic"] == plan.input
    return place_ids(dead["partition"][mine], dead["offset"][mine]), dead["reason"][mine].tolist()


def hop_ids(plan: StagePlan, output: Table, history: History) -> Ids:
    """Return, for each output row of a stage, the place of the record in the stage's own input.

    Where the input holds no record from the same event, it is the bitwise complement of the event's place.
    """
    ids = source_ids(output)
    if plan.first:
        return ids
    inputs = history.outputs[plan.input]
    sources = source_ids(inputs)
    if not len(sources):
        return ~ids
    order = np.argsort(sources, kind="stable")
    at = np.searchsorted(sources[order], ids)
    rows = order[np.minimum(at, len(order) - 1)]
    places = place_ids(inputs.records.partitions, inputs.records.offsets)[rows]
    return np.where(sources[rows] == ids, places, ~ids)


def check_published(plan: StagePlan, published: Mapping[str, int], history: History) -> list[str]:
    """Hold the numbers of distinct outcomes against what was published, of which the engine knows nothing.

    What the engine drops in silence, the undisturbed run drops as well: only here it shows.
    """
    answered = len(np.unique(hop_ids(plan, history.outputs[plan.output], history)))
    rejected_ids, reasons = dead_letters_of(plan, history)
    if not plan.first:
        events = len(np.unique(source_ids(history.outputs[plan.input])))
        outcomes = answered + len(np.unique(rejected_ids))
        return [] if outcomes == events else [f"{plan.name}: {outcomes} outcomes of {events} events"]
    counts = Counter(dict(zip(rejected_ids.tolist(), reasons, strict=True)).values())
    found = {"sound": answered, "late": counts.pop("late", 0), "range": counts.pop("range", 0)}
    found["poison"] = counts.total()
    found["duplicate"] = len(history.inputs[plan.input]) - sum(found.values())
    wrong = [f"{kind}: {NOTHING}" for kind in sorted(found) if not published.get(kind)]
    return wrong + [
        f"{plan.name}: {count} {kind}, {published.get(kind, 0)} were published"
        for kind, count in sorted(found.items())
        if count != published.get(kind, 0)
    ]


def check_values(plan: StagePlan, expected: ReferenceRun, history: History) -> list[str]:
    """Compare every column of a stage's output with the undisturbed run's, to the bit."""
    output = history.outputs[plan.output]
    ids = hop_ids(plan, output, history)
    ours, theirs = _aligned(ids, expected.ids)
    wrong = [] if len(ours) else [f"{plan.name}: {NOTHING}"]
    for name, values in output.batch.columns.items():
        if name in _STAMPS or name in _CONTENDERS:
            continue
        if name not in expected.columns:
            wrong.append(f"{plan.name}: {name} cannot be compared, the undisturbed run has no such column")
            continue
        column = expected.columns[name]
        nulls = output.batch.nulls.get(name, np.zeros(output.batch.length, dtype=np.bool_))
        bad = _differ(values[ours], nulls[ours], column[theirs], expected.nulls[name][theirs])
        wrong += [
            f"{plan.name}: {name} of {plan.input}{place_text(int(ids[ours][row]))} is "
            f"{values[ours][row]}, should be {column[theirs][row]}"
            for row in np.flatnonzero(bad)[:_SHOWN].tolist()
        ]
    if plan.output == SCORED:
        wrong += _check_answers(output, ids, expected)
    return wrong


def _check_answers(output: Table, ids: Ids, expected: ReferenceRun) -> list[str]:
    wrong = []
    versions = output.batch.columns["model_version"]
    for version in np.unique(versions).tolist():
        if version not in expected.answers:
            wrong.append(f"scored: {int((versions == version).sum())} answers by version {version}, never fit to serve")
            continue
        mine = np.flatnonzero(versions == version)
        ours, theirs = _aligned(ids[mine], expected.ids)
        for name in ANSWER:
            found = output.batch.columns[name][mine][ours]
            bad = found != expected.answers[version][name][theirs]
            if bad.any():
                wrong.append(f"scored: {int(bad.sum())} rows differ in {name} under version {version}")
    return wrong


def check_predictions(history: History) -> list[str]:
    """Hold predictions against scored: the same answers about the same events, each as often here as there."""
    scored, public = (_answers_of(table) for table in (history.outputs[SCORED], history.predictions))
    wrong = [] if public else [NOTHING]
    for one, other, few, many in ((scored, public, PREDICTIONS, SCORED), (public, scored, SCORED, PREDICTIONS)):
        wrong += [f"not in {few} but in {many}: {answer}" for answer in list((one - other).elements())]
    keys = history.predictions.records.keys
    ids = history.predictions.batch.columns["event_id"].tolist()
    return wrong + [
        f"the prediction of {each} has the key {key!r}"
        for key, each in zip(keys, ids, strict=True)
        if key != each.encode()
    ]


def _answers_of(table: Table) -> Counter[tuple[object, ...]]:
    columns = [table.batch.columns[name].tolist() for name in sorted({*_STAMPS, "received_at_ms"})]
    return Counter(zip(table.records.keys, *columns, strict=True))


def check_late(plan: StagePlan, history: History) -> list[str]:
    """No stage but the first may call an event late.

    The undisturbed run cannot show it: it reads the same input in the same order, so that it decides the same.
    """
    if plan.first:
        return []
    places, reasons = dead_letters_of(plan, history)
    return [
        f"{plan.name}: {plan.input}{place_text(place)} is late, and the first stage accepted it"
        for place, reason in zip(places.tolist(), reasons, strict=True)
        if reason == LATE
    ]


def check_order(plan: StagePlan, history: History) -> list[str]:
    """Within an output partition, what came from one input partition must keep its order: so every key keeps its.

    Of doubled outcomes the first counts; that they are doubled is another check's finding.
    """
    output = history.outputs[plan.output]
    ids, rows = np.unique(hop_ids(plan, output, history), return_index=True)
    rows = rows[ids >= 0]
    rows.sort()
    ids = hop_ids(plan, output, history)[rows]
    lanes = (output.records.partitions[rows] << 20) | (ids >> 44)
    order = np.argsort(lanes, kind="stable")
    together = np.diff(lanes[order]) == 0
    back = np.flatnonzero((np.diff(ids[order]) < 0) & together)
    wrong = [] if together.any() else [f"{plan.output}: {NOTHING}"]
    return wrong + [
        f"{plan.output}: {place_text(int(ids[order][row + 1]))} comes after a later one" for row in back.tolist()
    ]


def check_bytes(history: History) -> list[str]:
    """Every dead letter must be of a record that was there, and hold its key and its bytes."""
    originals: dict[tuple[str, int], tuple[bytes | None, bytes | None]] = {}
    for topic, records in history.inputs.items():
        ids = place_ids(records.partitions, records.offsets).tolist()
        pairs = zip(records.keys, records.values, strict=True)
        originals |= {(topic, place): pair for place, pair in zip(ids, pairs, strict=True)}
    dead = history.dead_letters.batch
    wrong = [] if dead.length else [NOTHING]
    places = place_ids(dead.columns["partition"], dead.columns["offset"]).tolist()
    kept = zip(_nullable(dead, "key"), _nullable(dead, "value"), strict=True)
    for topic, place, pair in zip(dead.columns["topic"].tolist(), places, kept, strict=True):
        original = originals.get((topic, place))
        if original is None:
            wrong.append(f"there is a dead letter of {topic}{place_text(place)}, but no such record")
        elif pair != original:
            wrong.append(f"the dead letter of {topic}{place_text(place)} does not hold its key and bytes")
    return wrong


def _nullable(batch: Batch, name: str) -> list[bytes | None]:
    nulls = batch.nulls.get(name, np.zeros(batch.length, dtype=np.bool_))
    return [None if null else each for null, each in zip(nulls.tolist(), batch.columns[name].tolist(), strict=True)]


def _aligned(ids: Ids, others: Ids) -> tuple[Ids, Ids]:
    """Return positions in both such that the ids agree; what is only in one is left out."""
    _, ours, theirs = np.intersect1d(ids, others, return_indices=True)
    return ours, theirs


def _differ(found: Array, found_null: Mask, wanted: Array, wanted_null: Mask) -> Mask:
    if found.dtype.kind == "f" or wanted.dtype.kind == "f":
        first = np.where(found_null, np.nan, found.astype(np.float64)).view(np.int64)
        second = np.where(wanted_null, np.nan, wanted.astype(np.float64)).view(np.int64)
        both_nan = np.isnan(first.view(np.float64)) & np.isnan(second.view(np.float64))
        return np.asarray((first != second) & ~both_nan)
    return np.asarray((found_null != wanted_null) | (~found_null & ~wanted_null & (found != wanted)))


def place_text(place: int) -> str:
    """Return a place in words: partition and offset, or those of the event that never came this far."""
    if place < 0:
        return f" (event {place_text(~place)}, of which nothing came this far)"
    return f"[{place >> 44}]@{place & ((1 << 44) - 1)}"
