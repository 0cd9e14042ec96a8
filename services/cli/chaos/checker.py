"""Compares what the topics hold with the undisturbed run, in the manner of Jepsen and of Kafka Streams' tests.

Each check returns sentences about what is wrong; none means the invariant holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from services.cli.chaos.history import History, Ids, Table, place_ids
from services.cli.chaos.observer import Observer, Sample
from services.cli.chaos.oracle import ANSWER, Undisturbed
from services.core.batch import Array, Mask
from services.topology import DEAD_LETTERS, PREDICTIONS, SCORED, StagePlan

_STAMPS = frozenset({"scored_at_ms", *ANSWER})
_SHOWN = 5


def source_ids(table: Table) -> Ids:
    """Return the place in the event topic that each row came from."""
    columns = table.batch.columns
    return place_ids(columns["source_partition"], columns["source_offset"])


def check_outcomes(plan: StagePlan, expected: Undisturbed, history: History) -> dict[str, list[str]]:
    """Hold a stage's outputs and dead letters against its input: lost, doubled, without input."""
    inputs = history.inputs[plan.input]
    outcome_ids, letters = _outcomes(plan, history)
    places = place_ids(inputs.partitions, inputs.offsets)
    known = np.concatenate([expected.ids, expected.dropped, np.array(list(expected.rejected), dtype=np.int64)])
    assert len(known) == len(places), f"{plan.name}: the undisturbed run lost {len(places) - len(known)} inputs"
    findings: dict[str, list[str]] = {"lost": [], "doubled": [], "outcome without input": [], "wrong reason": []}
    for what, wanted, found in (
        ("answer", expected.ids, outcome_ids),
        ("dead letter", np.array(sorted(expected.rejected), dtype=np.int64), np.array(sorted(letters), dtype=np.int64)),
    ):
        distinct, counts = np.unique(found, return_counts=True)
        for title, ids in (
            ("lost", np.setdiff1d(wanted, distinct)),
            ("doubled", distinct[counts > 1]),
            ("outcome without input", np.setdiff1d(distinct, wanted)),
        ):
            findings[title] += [f"{plan.name}: {what} of {plan.input}{_place(each)}" for each in ids.tolist()]
    for place, reason in expected.rejected.items():
        if place in letters and letters[place] != reason:
            findings["wrong reason"].append(f"{plan.input}{_place(place)}: {letters[place]}, should be {reason}")
    return findings


def _outcomes(plan: StagePlan, history: History) -> tuple[Ids, dict[int, str]]:
    """Return the input places of a stage's outputs, and its dead letters' reasons by input place."""
    output = history.outputs[plan.output]
    dead = history.dead_letters.batch.columns
    mine = dead["topic"] == plan.input
    letter_ids = place_ids(dead["partition"][mine], dead["offset"][mine])
    counts = Counter(letter_ids.tolist())
    letters = dict(zip(letter_ids.tolist(), dead["reason"][mine].tolist(), strict=True))
    doubled = [place for place, count in counts.items() if count > 1]
    assert not doubled, f"dead letters doubled: {[_place(each) for each in doubled[:_SHOWN]]}"
    return hop_ids(plan, output, history), letters


def hop_ids(plan: StagePlan, output: Table, history: History) -> Ids:
    """Return, for each output row of a stage, the place of the record in the stage's own input."""
    ids = source_ids(output)
    if plan.first:
        return ids
    inputs = history.outputs[plan.input]
    sources = source_ids(inputs)
    order = np.argsort(sources, kind="stable")
    at = np.searchsorted(sources[order], ids)
    at = np.minimum(at, len(order) - 1)
    rows = order[at]
    places = place_ids(inputs.records.partitions, inputs.records.offsets)[rows]
    return np.where(sources[rows] == ids, places, -1)


def check_values(plan: StagePlan, expected: Undisturbed, history: History) -> list[str]:
    """Compare every column of a stage's output with the undisturbed run's, to the bit."""
    output = history.outputs[plan.output]
    ids = hop_ids(plan, output, history)
    ours, theirs = _aligned(ids, expected.ids)
    wrong = []
    for name, column in expected.columns.items():
        if name in _STAMPS or name not in output.batch.columns:
            continue
        nulls = output.batch.nulls.get(name, np.zeros(output.batch.length, dtype=np.bool_))
        bad = _differ(output.batch.columns[name][ours], nulls[ours], column[theirs], expected.nulls[name][theirs])
        wrong += [
            f"{plan.name}: {name} of {plan.input}{_place(int(ids[ours][row]))} is "
            f"{output.batch.columns[name][ours][row]}, should be {column[theirs][row]}"
            for row in np.flatnonzero(bad)[:_SHOWN].tolist()
        ]
    if plan.output == SCORED:
        wrong += _check_answers(output, ids, expected)
    return wrong


def _check_answers(output: Table, ids: Ids, expected: Undisturbed) -> list[str]:
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
    """Hold predictions against scored: the same events once each, and the same answers."""
    scored, public = history.outputs[SCORED], history.predictions
    by_key = [
        dict(zip(table.records.keys, table.batch.columns["score"].tolist(), strict=True)) for table in (scored, public)
    ]
    wrong = [] if by_key[0] == by_key[1] else [f"{PREDICTIONS} and {SCORED} differ in events or scores"]
    return wrong + (
        [f"{len(public.records) - len(by_key[1])} predictions doubled"] if len(by_key[1]) < len(public.records) else []
    )


def check_order(plan: StagePlan, history: History) -> list[str]:
    """Within an output partition, what came from one input partition must keep its order: so every key keeps its."""
    output = history.outputs[plan.output]
    ids = hop_ids(plan, output, history)
    lanes = (output.records.partitions << 20) | (ids >> 44)
    order = np.argsort(lanes, kind="stable")
    back = np.flatnonzero((np.diff(ids[order]) < 0) & (np.diff(lanes[order]) == 0))
    return [f"{plan.output}: {_place(int(ids[order][row + 1]))} comes after a later one" for row in back.tolist()]


def check_aborted_reads(observer: Observer, history: History) -> list[str]:
    """What a subscriber once saw must still be there, and all that is there must have been seen."""
    wrong = list(observer.backwards)
    for topic, records in ((PREDICTIONS, history.predictions.records), (DEAD_LETTERS, history.dead_letters.records)):
        final = {
            (topic, p, o): key
            for p, o, key in zip(records.partitions.tolist(), records.offsets.tolist(), records.keys, strict=True)
        }
        seen = {place: key for place, key in observer.seen.items() if place[0] == topic}
        wrong += [f"{place} was seen and is gone" for place in sorted(seen.keys() - final.keys())[:_SHOWN]]
        wrong += [f"{place} was never seen" for place in sorted(final.keys() - seen.keys())[:_SHOWN]]
        wrong += [f"{place} has another key" for place in seen.keys() & final.keys() if seen[place] != final[place]]
    return wrong


def check_commits(plan: StagePlan, samples: Sequence[Sample], expected: Undisturbed, history: History) -> list[str]:
    """At each sample, every input below the committed offset must have had its outcome in the log."""
    where = _written_at(plan, history)
    inputs = history.inputs[plan.input]
    places = place_ids(inputs.partitions, inputs.offsets)
    silent = set(expected.dropped.tolist())
    wrong: list[str] = []
    before: dict[int, int] = {}
    for sample in samples:
        for partition, committed in sample.committed.items():
            known = before.get(partition, 0)
            if committed < known:
                wrong.append(f"{plan.input}[{partition}] was committed to {known}, then to {committed}")
            low, high = np.searchsorted(places, [(partition << 44) | known, (partition << 44) | committed])
            for place in places[low:high].tolist():
                topic, out, offset = where.get(place, ("", -1, -1))
                if place not in silent and (not topic or offset >= sample.written.get((topic, out), -1)):
                    wrong.append(f"{plan.input}{_place(place)} was committed before its outcome was written")
            before[partition] = max(known, committed)
    return wrong


def _written_at(plan: StagePlan, history: History) -> dict[int, tuple[str, int, int]]:
    """Return where the outcome of each input is: topic, partition, offset."""
    found = {}
    output = history.outputs[plan.output]
    dead, letters = history.dead_letters.batch.columns, history.dead_letters.records
    mine = np.flatnonzero(dead["topic"] == plan.input)
    for topic, ids, records in (
        (plan.output, hop_ids(plan, output, history), output.records),
        (DEAD_LETTERS, place_ids(dead["partition"][mine], dead["offset"][mine]), letters.take(mine)),
    ):
        for place, partition, offset in zip(
            ids.tolist(), records.partitions.tolist(), records.offsets.tolist(), strict=True
        ):
            found[place] = (topic, partition, offset)
    return found


def check_bytes(history: History) -> list[str]:
    """Every dead letter must hold the original's bytes."""
    originals: dict[tuple[str, int], int] = {}
    for topic, records in history.inputs.items():
        ids = place_ids(records.partitions, records.offsets).tolist()
        originals |= {(topic, place): row for row, place in enumerate(ids)}
    dead = history.dead_letters.batch
    wrong = []
    nulls = dead.nulls.get("value", np.zeros(dead.length, dtype=np.bool_))
    for row in range(dead.length):
        topic = dead.columns["topic"][row]
        place = int(place_ids(dead.columns["partition"][row : row + 1], dead.columns["offset"][row : row + 1])[0])
        original = history.inputs[topic].values[originals[topic, place]]
        kept = None if nulls[row] else dead.columns["value"][row]
        if kept != original:
            wrong.append(f"the dead letter of {topic}{_place(place)} does not hold its bytes")
    return wrong


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


def _place(place: int) -> str:
    return f"[{place >> 44}]@{place & ((1 << 44) - 1)}"
