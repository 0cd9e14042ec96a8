"""The checker of chaos runs tells every violation it exists for, and only that: each is planted in a sound history."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from millstream.app.assembly import Assembly, assemble
from millstream.core.models.manifest import define
from millstream.runtime.dead_letters import DeadLetterLimit
from millstream.runtime.log.memory_log import MemoryBroker, MemoryLog
from millstream.runtime.log.records import Output, Records
from millstream.runtime.loop import LoopLimits, StageLoop
from millstream.runtime.observer import Unobserved
from millstream.runtime.recovery import MARKER_KEY
from millstream.settings import load_settings
from millstream.stages.score.scorer import Champion
from millstream.stages.score.step import Score
from millstream.topology import DEAD_LETTERS, PREDICTIONS, SCORED
from millstream_lab.chaos.candidate_models import candidate
from millstream_lab.chaos.checker import hop_ids
from millstream_lab.chaos.checker_state import check_state
from millstream_lab.chaos.fault_injector import InjectedFault, idle
from millstream_lab.chaos.faults import FAULTS, KILLS
from millstream_lab.chaos.history import History, Table, place_ids, read_history
from millstream_lab.chaos.invariants import check_topics
from millstream_lab.chaos.observer import Observer, Sample, WatchedGroup
from millstream_lab.chaos.oracle import ReferenceRun, run_undisturbed
from millstream_lab.chaos.stream import ChaosStream

PARTITIONS = 2
CHUNK, CHUNKS = 100, 8
NOW_MS = 1_600_000_000_000


@dataclass
class Scene:
    """All that the checker is given."""

    assembly: Assembly
    broker: MemoryBroker
    expected: Mapping[str, ReferenceRun]
    history: History
    observer: Observer
    published: dict[str, int]

    def wrong(self) -> dict[str, list[str]]:
        """Return the findings of the invariants that are broken."""
        stages = self.assembly.topology.stages
        found = check_topics(stages, self.expected, self.history, self.observer, self.published)
        return {name: sentences for name, sentences in found.items() if sentences}

    def put(self, **tables: Table) -> None:
        """Replace tables: `scored`, `predictions` or `dead_letters`."""
        if "scored" in tables:
            self.history = replace(self.history, outputs={**self.history.outputs, SCORED: tables.pop("scored")})
        self.history = replace(self.history, **tables)  # type: ignore[arg-type]

    @property
    def scored(self) -> Table:
        return self.history.outputs[SCORED]


class GroupLog(MemoryLog):
    """The in-memory log with its group's offsets to be asked for, as `KafkaReader` has them."""

    def committed(self, topic: str, partitions: Sequence[int]) -> dict[int, int | None]:
        return {p: self._broker.committed.get((self._group, topic, p)) for p in partitions}


@pytest.fixture(scope="module")
def sound() -> Scene:
    """A stream in slices through the real stages, looked at after each slice; the model is swapped half way."""
    assembly = assemble(load_settings({}))
    plans, service = assembly.topology.stages, assembly.declaration.service
    models = [candidate(service, version, 1) for version in (1, 2)]
    champions = [Champion.load(each, service, 1, define(assembly.declaration)) for each in models]
    broker = MemoryBroker(PARTITIONS, now_ms=NOW_MS)
    loops = []
    for plan in plans:
        log = MemoryLog(broker, plan.name)
        limit = DeadLetterLimit(1.0, 1)
        stage = assembly.stage(plan, assembly.resolver())
        loops.append(StageLoop(stage, log, LoopLimits(32, 1 << 62), limit, None, Unobserved(), now_ms=lambda: NOW_MS))
        loops[-1].start()
    stream = ChaosStream(assembly.contract.schema, 5, 5_000, customers=20, terminals=20)
    watched = [WatchedGroup(plan.name, plan.input, (plan.output, DEAD_LETTERS)) for plan in plans]
    observer = Observer({}, watched, (PREDICTIONS, DEAD_LETTERS), PARTITIONS, PREDICTIONS)
    for turn in range(CHUNKS):
        score = loops[-1].work.score  # type: ignore[attr-defined]
        assert isinstance(score, Score)
        score.swap(champions[turn * 2 // CHUNKS])
        messages = stream.take(CHUNK)
        broker.append(Output(plans[0].input, [each.key for each in messages], [each.value for each in messages]))
        for loop in loops:
            while batches := loop.poll(0.0):
                loop.handle(batches)
        for each in watched:
            observer.samples.append(_sample(broker, each))
        for topic in (PREDICTIONS, DEAD_LETTERS):
            for partition, held in enumerate(broker.log(topic)):
                for offset, (_stamp, key, _value) in enumerate(held.entries):
                    observer.seen[topic, partition, offset] = key or b""
    for loop in loops:
        loop.close()
    history = read_history(MemoryLog(broker, "checker"), assembly, assembly.resolver(), PARTITIONS)
    expected = {
        plan.name: run_undisturbed(assembly, plan, assembly.resolver(), history.inputs[plan.input], champions)
        for plan in plans
    }
    return Scene(assembly, broker, expected, history, observer, dict(stream.kinds))


def _sample(broker: MemoryBroker, watched: WatchedGroup) -> Sample:
    committed = {p: broker.committed.get((watched.group, watched.topic, p), 0) for p in range(PARTITIONS)}
    written = {(topic, p): broker.log(topic)[p].end for topic in watched.outputs for p in range(PARTITIONS)}
    return Sample(watched.group, watched.topic, 0.0, committed, written, committed)


@pytest.fixture
def scene(sound: Scene) -> Scene:
    """A copy to plant in."""
    observer = Observer({}, sound.observer.watched, sound.observer.topics, PARTITIONS, PREDICTIONS)
    observer.seen, observer.samples = dict(sound.observer.seen), copy.deepcopy(sound.observer.samples)
    return replace(sound, observer=observer, published=dict(sound.published), broker=copy.deepcopy(sound.broker))


def without(table: Table, row: int) -> Table:
    kept = np.delete(np.arange(len(table.records)), row)
    return Table(table.records.take(kept), table.batch.take(kept))


def doubled(table: Table, row: int) -> Table:
    """Return the table with a copy of a row at the end of its partition."""
    rows = np.append(np.arange(len(table.records)), row)
    records = table.records.take(rows)
    records.offsets[-1] = records.offsets[records.partitions == records.partitions[-1]].max() + 1
    return Table(records, table.batch.take(rows))


def swapped(table: Table, row: int, other: int) -> Table:
    """Return the table with two rows in each other's place."""
    rows = np.arange(len(table.records))
    rows[[row, other]] = other, row
    moved = table.records.take(rows)
    return Table(replace(moved, offsets=table.records.offsets), table.batch.take(rows))


def changed(table: Table, row: int, column: str, value: object) -> Table:
    values = table.batch.columns[column].copy()
    values[row] = value
    return Table(table.records, table.batch.with_columns({column: values}, dict(table.batch.nulls)))


def last_bit(table: Table, row: int, column: str) -> Table:
    return changed(table, row, column, np.nextafter(table.batch.columns[column][row], np.inf))


def place(records: Records, row: int, topic: str) -> tuple[str, int, int]:
    return topic, int(records.partitions[row]), int(records.offsets[row])


def letter_row(scene: Scene, *reasons: str) -> int:
    """Return the row of a dead letter with one of these reasons, or of poison."""
    found = scene.history.dead_letters.batch.columns["reason"].tolist()
    wanted = [row for row, reason in enumerate(found) if (reason in reasons if reasons else reason not in _VALID)]
    return wanted[len(wanted) // 2]


_VALID = {"late", "range"}


def answer_missing(scene: Scene) -> None:
    key = scene.scored.records.keys[100]
    row = scene.history.predictions.records.keys.index(key)
    del scene.observer.seen[place(scene.history.predictions.records, row, PREDICTIONS)]
    scene.put(scored=without(scene.scored, 100), predictions=without(scene.history.predictions, row))


def answer_doubled(scene: Scene) -> None:
    row = scene.history.predictions.records.keys.index(scene.scored.records.keys[100])
    scene.put(scored=doubled(scene.scored, 100), predictions=doubled(scene.history.predictions, row))
    records = scene.history.predictions.records
    scene.observer.seen[place(records, -1, PREDICTIONS)] = records.keys[-1] or b""


def answer_without_input(scene: Scene) -> None:
    answer_doubled(scene)
    scene.put(scored=changed(scene.scored, -1, "source_offset", 1 << 30))


def feature_changed(scene: Scene) -> None:
    name = next(each for each in scene.scored.batch.columns if "mean" in each)
    scene.put(scored=last_bit(scene.scored, 100, name))


def carried_changed(scene: Scene) -> None:
    topic = scene.assembly.topology.stages[0].output
    outputs = {**scene.history.outputs, topic: last_bit(scene.history.outputs[topic], 100, "amount")}
    scene.history = replace(scene.history, outputs=outputs)


def null_for_a_value(scene: Scene) -> None:
    name = next(each for each in scene.scored.batch.columns if "mean" in each)
    mask = scene.scored.batch.nulls.get(name, np.zeros(len(scene.scored.records), dtype=np.bool_)).copy()
    mask[100] = True
    batch = replace(scene.scored.batch, nulls={**scene.scored.batch.nulls, name: mask})
    scene.put(scored=Table(scene.scored.records, batch))


def column_nobody_knows(scene: Scene) -> None:
    table = scene.scored
    batch = table.batch.with_columns({"new": np.zeros(table.batch.length)}, dict(table.batch.nulls))
    scene.put(scored=Table(table.records, batch))


def both_answers(scene: Scene, change: Callable[[Table, int], Table]) -> None:
    """Change the same answer in scored and predictions, so that they agree."""
    row = scene.history.predictions.records.keys.index(scene.scored.records.keys[100])
    scene.put(scored=change(scene.scored, 100), predictions=change(scene.history.predictions, row))


def score_changed(scene: Scene) -> None:
    both_answers(scene, lambda table, row: last_bit(table, row, "score"))


def other_version(scene: Scene) -> None:
    version = int(scene.scored.batch.columns["model_version"][100])
    both_answers(scene, lambda table, row: changed(table, row, "model_version", 3 - version))


def unfit_version(scene: Scene) -> None:
    both_answers(scene, lambda table, row: changed(table, row, "model_version", 901))


def order_swapped(scene: Scene) -> None:
    table = scene.scored
    ids = hop_ids(scene.assembly.topology.stages[-1], table, scene.history)
    row = next(
        row
        for row in range(100, len(ids) - 1)
        if table.records.partitions[row] == table.records.partitions[row + 1] and ids[row] >> 44 == ids[row + 1] >> 44
    )
    scene.put(scored=swapped(table, row, row + 1))


def letter_bytes(scene: Scene) -> None:
    scene.put(dead_letters=changed(scene.history.dead_letters, letter_row(scene), "value", b"other"))


def letter_key(scene: Scene) -> None:
    scene.put(dead_letters=changed(scene.history.dead_letters, letter_row(scene), "key", b"other"))


def letter_reason(scene: Scene) -> None:
    scene.put(dead_letters=changed(scene.history.dead_letters, letter_row(scene), "reason", "null-key"))


def letter_missing(scene: Scene) -> None:
    row = letter_row(scene, "late")
    del scene.observer.seen[place(scene.history.dead_letters.records, row, DEAD_LETTERS)]
    scene.put(dead_letters=without(scene.history.dead_letters, row))


def letter_doubled(scene: Scene) -> None:
    scene.put(dead_letters=doubled(scene.history.dead_letters, letter_row(scene, "range")))
    records = scene.history.dead_letters.records
    scene.observer.seen[place(records, -1, DEAD_LETTERS)] = records.keys[-1] or b""


def letter_without_input(scene: Scene) -> None:
    letter_doubled(scene)
    scene.put(dead_letters=changed(scene.history.dead_letters, -1, "offset", 1 << 30))


def late_at_a_later_stage(scene: Scene) -> None:
    """Instead of its answer, and as the undisturbed run has it."""
    plan = scene.assembly.topology.stages[-1]
    place_id = int(hop_ids(plan, scene.scored, scene.history)[100])
    answer_missing(scene)
    letter_doubled(scene)
    dead = scene.history.dead_letters
    record = scene.history.inputs[plan.input]
    row = int(np.flatnonzero(place_ids(record.partitions, record.offsets) == place_id)[0])
    found = {
        "topic": plan.input,
        "partition": record.partitions[row],
        "offset": record.offsets[row],
        "reason": "late",
        "key": record.keys[row],
        "value": record.values[row],
    }
    for column, value in found.items():
        dead = changed(dead, -1, column, value)
    scene.put(dead_letters=dead)
    undisturbed = scene.expected[plan.name]
    kept = undisturbed.ids != place_id
    columns, nulls = ({n: v[kept] for n, v in each.items()} for each in (undisturbed.columns, undisturbed.nulls))
    answers = {v: {n: a[kept] for n, a in each.items()} for v, each in undisturbed.answers.items()}
    late = replace(undisturbed, ids=undisturbed.ids[kept], columns=columns, nulls=nulls, answers=answers)
    late.rejected = {place_id: "late"}
    scene.expected = {**scene.expected, plan.name: late}


def letter_of_nothing_we_read(scene: Scene) -> None:
    letter_doubled(scene)
    scene.put(dead_letters=changed(scene.history.dead_letters, -1, "topic", "elsewhere"))


def seen_and_gone(scene: Scene) -> None:
    scene.observer.seen[PREDICTIONS, 0, 1 << 30] = b"1"


def never_seen(scene: Scene) -> None:
    del scene.observer.seen[PREDICTIONS, 0, 7]


def seen_with_another_key(scene: Scene) -> None:
    scene.observer.seen[PREDICTIONS, 0, 7] = b"other"


def seen_backwards(scene: Scene) -> None:
    scene.observer.backwards.append("predictions[0]@3 after 4")


def commit_ahead(scene: Scene) -> None:
    scene.observer.samples[4].committed[0] += 1


def commit_backwards(scene: Scene) -> None:
    scene.observer.samples[6].committed[1] = scene.observer.samples[4].committed[1] - 1


def prediction_changed(scene: Scene) -> None:
    scene.put(predictions=last_bit(scene.history.predictions, 100, "score"))


def decision_changed(scene: Scene) -> None:
    scene.put(predictions=changed(scene.history.predictions, 100, "decision", "neither"))


def prediction_of_another(scene: Scene) -> None:
    scene.put(predictions=changed(scene.history.predictions, 100, "event_id", "999999"))


def prediction_missing(scene: Scene) -> None:
    del scene.observer.seen[place(scene.history.predictions.records, 100, PREDICTIONS)]
    scene.put(predictions=without(scene.history.predictions, 100))


def prediction_doubled(scene: Scene) -> None:
    scene.put(predictions=doubled(scene.history.predictions, 100))
    records = scene.history.predictions.records
    scene.observer.seen[place(records, -1, PREDICTIONS)] = records.keys[-1] or b""


def dropped_by_all(scene: Scene) -> None:
    """The engine swallows a sound event, and so does the undisturbed run: nobody but the publisher knows of it."""
    scene.published["sound"] += 1
    scene.published["duplicate"] -= 1


def unreadable(scene: Scene) -> None:
    entries = scene.broker.log(SCORED)[0].entries
    entries[5] = (entries[5][0], entries[5][1], b"not Avro")
    log = MemoryLog(scene.broker, "checker")
    scene.history = read_history(log, scene.assembly, scene.assembly.resolver(), PARTITIONS)


def nothing_sampled(scene: Scene) -> None:
    scene.observer.samples.clear()


def nothing_committed(scene: Scene) -> None:
    scene.observer.samples = [replace(each, committed={}) for each in scene.observer.samples]


def no_poison(scene: Scene) -> None:
    """The stream had none, and nothing came of none."""
    row = letter_row(scene)
    while scene.published["poison"]:
        row = letter_row(scene)
        letters = scene.history.dead_letters
        scene.put(dead_letters=changed(letters, row, "reason", "late"))
        scene.published["poison"] -= 1
        scene.published["late"] += 1


COUNTED = {"lost", "commit after outcome", "as many as published"}
PLANTS: list[tuple[Callable[[Scene], None], set[str]]] = [
    (answer_missing, COUNTED),
    (answer_doubled, {"doubled"}),
    (answer_without_input, {"outcome without input", "as many as published"}),
    (feature_changed, {"features and scores equal"}),
    (carried_changed, {"features and scores equal"}),
    (null_for_a_value, {"features and scores equal"}),
    (column_nobody_knows, {"features and scores equal"}),
    (score_changed, {"features and scores equal"}),
    (other_version, {"features and scores equal"}),
    (unfit_version, {"features and scores equal"}),
    (order_swapped, {"order per key"}),
    (letter_bytes, {"bytes of dead letters"}),
    (letter_key, {"bytes of dead letters"}),
    (letter_reason, {"wrong reason"}),
    (letter_missing, COUNTED),
    (letter_doubled, {"doubled"}),
    (letter_without_input, {"outcome without input", "as many as published", "bytes of dead letters"}),
    (late_at_a_later_stage, {"late at a later stage", "commit after outcome"}),  # which comes last of all
    (letter_of_nothing_we_read, {"bytes of dead letters"}),
    (seen_and_gone, {"aborted read"}),
    (never_seen, {"aborted read"}),
    (seen_with_another_key, {"aborted read"}),
    (seen_backwards, {"aborted read"}),
    (commit_ahead, {"commit after outcome"}),
    (commit_backwards, {"commit after outcome"}),
    (prediction_changed, {"predictions equal scored"}),
    (decision_changed, {"predictions equal scored"}),
    (prediction_of_another, {"predictions equal scored"}),
    (prediction_missing, {"predictions equal scored"}),
    (prediction_doubled, {"predictions equal scored"}),
    (dropped_by_all, {"as many as published"}),
    (unreadable, COUNTED | {"readable", "predictions equal scored"}),
    (nothing_sampled, {"commit after outcome"}),
    (nothing_committed, {"commit after outcome"}),
    (no_poison, {"as many as published", "wrong reason"}),
]


def test_a_sound_history_has_no_findings(sound: Scene) -> None:
    assert sound.wrong() == {}
    assert min(sound.published[kind] for kind in ("sound", "duplicate", "late", "range", "poison")) > 0
    assert set(sound.scored.batch.columns["model_version"].tolist()) == {1, 2}


@pytest.mark.parametrize(("plant", "told"), PLANTS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_planted_violation_is_told_as_what_it_is(
    scene: Scene, plant: Callable[[Scene], None], told: set[str]
) -> None:
    plant(scene)
    wrong = scene.wrong()
    assert set(wrong) == told, wrong


def test_a_history_of_nothing_passes_no_check(scene: Scene) -> None:
    """Every check that compares has something to say when there is nothing to compare."""
    stages = scene.assembly.topology.stages
    empty = MemoryBroker(PARTITIONS)
    resolve = scene.assembly.resolver()
    scene.history = read_history(MemoryLog(empty, "checker"), scene.assembly, resolve, PARTITIONS)
    scene.expected = {
        plan.name: run_undisturbed(scene.assembly, plan, resolve, scene.history.inputs[plan.input]) for plan in stages
    }
    scene.observer.seen.clear()
    scene.observer.samples.clear()
    scene.published.clear()
    assert set(scene.wrong()) == {
        "as many as published",
        "features and scores equal",
        "order per key",
        "commit after outcome",
        "predictions equal scored",
        "aborted read",
        "bytes of dead letters",
    }
    for plan in stages:
        fresh = scene.assembly.stage(plan, resolve)
        assert check_state(plan, scene.expected[plan.name], fresh, GroupLog(empty, plan.name))


def older_marker(key: bytes, value: bytes) -> Output | None:
    if key != MARKER_KEY:
        return None
    marker = json.loads(value)
    return Output("", [key], [json.dumps({**marker, "next_offset": marker["next_offset"] - 1}).encode()], 0)


def row_changed(key: bytes, value: bytes) -> Output | None:
    return Output("", [key], [value[:-1] + bytes([value[-1] ^ 1])], 0) if key != MARKER_KEY else None


def row_missing(key: bytes, value: bytes) -> Output | None:
    return Output("", [key], [None], 0) if key != MARKER_KEY else None


def row_too_many(key: bytes, value: bytes) -> Output | None:
    return Output("", [b"r999999/0"], [value], 0) if key != MARKER_KEY else None


def row_damaged(key: bytes, value: bytes) -> Output | None:
    return Output("", [key[:-1] + b"\xfe"], [value], 0) if key != MARKER_KEY else None


@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (older_marker, "were replayed"),
        (row_changed, "differs"),
        (row_missing, "is missing"),
        (row_too_many, "is too many"),
        (row_damaged, "cannot be recovered"),
        (None, None),
    ],
)
def test_state_that_differs_is_told(
    scene: Scene, plant: Callable[[bytes, bytes], Output | None] | None, told: str | None
) -> None:
    for plan in scene.assembly.topology.stages:
        if plant is not None:
            entries = scene.broker.log(plan.changelog)[0].entries
            made = next(m for _, k, v in reversed(entries) if k and v and (m := plant(k, v)))
            scene.broker.append(replace(made, topic=plan.changelog))
        fresh = scene.assembly.stage(plan, scene.assembly.resolver())
        expected = run_undisturbed(scene.assembly, plan, scene.assembly.resolver(), scene.history.inputs[plan.input])
        wrong = check_state(plan, expected, fresh, GroupLog(scene.broker, plan.name))
        assert any(told in sentence for sentence in wrong) if told else wrong == [], wrong


def test_a_fault_that_never_did_harm_is_told() -> None:
    names = [*KILLS, *FAULTS]
    deeds = [InjectedFault(name, "", 0.0, 0.0, 0.0, 0, harmed=name != names[0]) for name in names]
    assert idle(deeds) == [f"{names[0]} never did"]
    assert idle([*deeds, InjectedFault(names[0], "", 0.0, 0.0, 0.0, 0)]) == []
