"""Checks of what was seen while it happened: by a subscriber, and of how far groups had committed when."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from millstream.topology import DEAD_LETTERS, PREDICTIONS, StagePlan
from millstream_lab.chaos.checker import NOTHING, hop_ids, place_text
from millstream_lab.chaos.history import History, place_ids
from millstream_lab.chaos.observer import Observer, Sample
from millstream_lab.chaos.oracle import ReferenceRun

_SHOWN = 5


def check_aborted_reads(observer: Observer, history: History) -> list[str]:
    """What a subscriber once saw must still be there, and all that is there must have been seen."""
    wrong = list(observer.backwards)
    if not observer.seen:
        wrong.append(NOTHING)
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


def check_commits(plan: StagePlan, samples: Sequence[Sample], expected: ReferenceRun, history: History) -> list[str]:
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
                    wrong.append(f"{plan.input}{place_text(place)} was committed before its outcome was written")
            before[partition] = max(known, committed)
    return wrong if any(before.values()) else [*wrong, f"{plan.name}: {NOTHING}"]


def _written_at(plan: StagePlan, history: History) -> dict[int, tuple[str, int, int]]:
    """Return where the first outcome of each input is: topic, partition, offset."""
    found: dict[int, tuple[str, int, int]] = {}
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
            found.setdefault(place, (topic, partition, offset))
    return found
