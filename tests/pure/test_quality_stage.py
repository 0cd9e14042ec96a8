"""Quality as a stage on the log in memory: wherever it dies, what is published ends as a batch recomputation."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.adapters.files.contracts import load_contract
from millstream.adapters.telemetry.metrics import Telemetry
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.schema import Field, Schema
from millstream.core.batch import Batch
from millstream.core.ledger.tally import SIZE, LedgerReport, encode_report
from millstream.core.metrics import DAY_MS
from millstream.core.quality.board import Board, predictions
from millstream.core.quality.pieces import joined, split
from millstream.core.quality.report import Reporter
from millstream.core.quality.scored_records import ScoredRecords
from millstream.core.quality.snapshot import encode_predicted
from millstream.core.quality.topic import as_batch, with_gaps
from millstream.errors import Stop
from millstream.runtime.dead_letters import DeadLetterLimit
from millstream.runtime.log.memory_log import MemoryBroker, MemoryLog
from millstream.runtime.log.records import Output, Place
from millstream.runtime.loop import LoopLimits, StageLoop
from millstream.runtime.observer import Unobserved
from millstream.settings import load_settings
from millstream.stages.quality.metrics import QualityMetrics
from millstream.stages.quality.stage import QualityStage
from millstream.stages.quality.state import MeasuredConfiguration
from millstream.stages.validate.step import Validate
from millstream.topology import EXAMPLES, JOIN_CHANGELOG, QUALITY, QUALITY_CHANGELOG

FIGURES = load_contract(load_settings({}), QUALITY).schema
SCHEMA = Schema(
    "shop.examples",
    (
        Field("event_id", "string"),
        Field("at_ms", "long"),
        Field("card", "long"),
        Field("night", "long"),
        Field("arm", "string"),
        Field("score", "double"),
        Field("model", "string"),
        Field("model_version", "long"),
        Field("decision", "string"),
        Field("threshold", "double", nullable=True, default=None),
        Field("champion_score", "double", nullable=True, default=None),
        Field("champion_version", "long", nullable=True, default=None),
        Field("online_score", "double", nullable=True, default=None),
        Field("label", "double", nullable=True, default=None),
        Field("label_known_at_ms", "long"),
        Field("revision", "long"),
    ),
)
WRITER, READER = RecordWriter(SCHEMA), RecordReader(SCHEMA, lambda _: None)
MEASURED = ScoredRecords("at_ms", "fraud", "block", 0.5, "card", "night")
DECLARED = MeasuredConfiguration((7, 30), "card", "night", 2)


@dataclass(frozen=True)
class Event:
    at_ms: int
    card: int
    night: int
    arm: str
    champion: float | None
    online: float | None


@dataclass(frozen=True)
class Example:
    event: int
    revision: int
    label: float | None
    delay_ms: int


def batch_of(events: Sequence[Event], examples: Sequence[Example]) -> Batch:
    """Return examples as columns."""
    about = [events[each.event] for each in examples]
    given = [each.champion if each.arm == "champion" else each.online or 0.5 for each in about]
    score = np.array([0.5 if each is None else each for each in given], dtype=np.float64)
    numbers = {
        "champion_score": [each.champion for each in about],
        "online_score": [each.online for each in about],
        "label": [each.label for each in examples],
    }
    at_ms = np.array([each.at_ms for each in about], dtype=np.int64)
    version = np.array([0 if each.champion is None else 3 for each in about], dtype=np.int64)
    columns = {
        "event_id": np.array([f"e{each.event}" for each in examples], dtype=object),
        "at_ms": at_ms,
        "card": np.array([each.card for each in about], dtype=np.int64),
        "night": np.array([each.night for each in about], dtype=np.int64),
        "arm": np.array([each.arm for each in about], dtype=object),
        "score": score,
        "model": np.array(["online" if each.arm == "online" else "fraud" for each in about], dtype=object),
        "model_version": version,
        "decision": np.where(score >= 0.4, "block", "allow").astype(object),
        "threshold": np.full(len(about), 0.4),
        "champion_version": version,
        "label_known_at_ms": at_ms + np.array([each.delay_ms for each in examples], dtype=np.int64),
        "revision": np.array([each.revision for each in examples], dtype=np.int64),
        **{name: np.array([0.0 if v is None else v for v in values]) for name, values in numbers.items()},
    }
    nulls = {name: np.array([v is None for v in values], dtype=np.bool_) for name, values in numbers.items()}
    nulls["champion_version"] = version == 0
    return Batch(len(examples), columns, nulls)


class DyingLog(MemoryLog):
    """A log whose member dies before or after a transaction."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker, "quality")
        self.fate = "fine"

    def commit(self, next_offsets: Mapping[Place, int]) -> None:
        """See `StageLog.commit`."""
        if self.fate == "before":
            raise Stop("died")
        super().commit(next_offsets)
        if self.fate == "after":
            raise Stop("died")


def start(
    broker: MemoryBroker, declared: MeasuredConfiguration = DECLARED, metrics: QualityMetrics | None = None
) -> tuple[StageLoop, DyingLog]:
    """Start a member."""
    stage = QualityStage(
        declared,
        replace(MEASURED, group=declared.group),
        Validate(READER, 1 << 20),
        RecordWriter(FIGURES),
        *([metrics] if metrics else []),
    )
    log = DyingLog(broker)
    loop = StageLoop(
        stage, log, LoopLimits(3, 1_000_000), DeadLetterLimit(1.0, 10), None, Unobserved(), now_ms=lambda: 0
    )
    loop.start()
    return loop, log


def published(broker: MemoryBroker, topic: str = QUALITY) -> dict[bytes, bytes]:
    """Return the newest value of each key."""
    found: dict[bytes, bytes] = {}
    for _, key, value in broker.log(topic)[0].entries:
        assert key is not None
        found.pop(key, None)
        if value is not None:
            found[key] = value
    return found


def figures_of(values: Sequence[bytes]) -> dict[str, tuple[object, ...]]:
    """Return by key what figures say, but for when it was said and what is empty."""
    batch = RecordReader(FIGURES, lambda _: None).decode(values, 1 << 20).batch
    names = ("value", "lower", "upper", "mature", "coverage", "examples", "positives")
    rows = zip(*(batch.columns[name].tolist() for name in names), strict=True)
    empty = {name: batch.is_null(name) for name in names}
    return {
        key: tuple(None if empty[name][i] else value for name, value in zip(names, row, strict=True))
        for i, (key, row) in enumerate(zip(batch.columns["key"].tolist(), rows, strict=True))
        if row[5]
    }


probabilities = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.4, 0.5, 1.0]))
events = st.lists(
    st.builds(
        Event,
        st.integers(0, 3 * DAY_MS),
        st.integers(0, 2),
        st.integers(0, 1),
        st.sampled_from(["champion", "online", "blend"]),
        st.one_of(st.none(), probabilities),
        st.one_of(st.none(), probabilities),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@given(events, st.data())
def test_dying_anywhere_ends_with_the_figures_of_a_batch_recomputation(known: list[Event], data: st.DataObject) -> None:
    history = st.lists(st.tuples(st.sampled_from([None, 0.0, 1.0]), st.integers(0, 12).map(DAY_MS.__mul__)), max_size=3)
    stream: list[Example] = []
    for event in range(len(known)):
        stream += [Example(event, 10 + 3 * i, *said) for i, said in enumerate(data.draw(history))]
    in_order = list(stream)
    stream += data.draw(st.lists(st.sampled_from(stream), max_size=4) if stream else st.just([]))
    stream = list(data.draw(st.permutations(stream)))
    every = batch_of(known, [Example(event, 1, None, 0) for event in range(len(known))])
    counted = predictions(every.columns["at_ms"], MEASURED.groups(every), MEASURED.contenders(every))
    days = sorted({seen.day for seen in counted})
    labels_to_ms = data.draw(st.integers(0, 15)) * DAY_MS
    tallies = [(b"0", encode_report(LedgerReport(np.zeros(SIZE, dtype=np.int64), 5, labels_to_ms)))]
    of_day = {day: {seen: count for seen, count in counted.items() if seen.day == day} for day in days}
    tallies += [(b"0|%d" % day, encode_predicted(of_day[day])) for day in days]

    broker = MemoryBroker(1)
    loop, log = start(broker)
    todo: list[tuple[str, bytes, bytes]] = [
        (EXAMPLES, b"k", value) for value in (WRITER.encode(batch_of(known, stream)) if stream else [])
    ]
    todo += [(JOIN_CHANGELOG, key, value) for key, value in tallies * 2]
    for topic, key, value in data.draw(st.permutations(todo)):
        broker.append(Output(topic, [key], [value], 0))
        step = data.draw(st.sampled_from(["wait", "batch", "checkpoint", "before", "after", "gone"]))
        if step == "wait":
            continue
        log.fate = step
        try:
            loop.handle(loop.poll(0))
            if step != "batch":
                loop.checkpoint(loop.partitions)
        except Stop:
            loop, log = start(broker)
        if step == "gone":
            loop, log = start(broker)
    log.fate = "fine"
    while batches := loop.poll(0):
        loop.handle(batches)
    loop.checkpoint(loop.partitions)

    board = Board(DECLARED.maturities_days)
    if in_order:
        board.update(MEASURED.examples(READER.decode(WRITER.encode(batch_of(known, in_order)), 1 << 20).batch))
    for day in days:
        board.set_predicted(0, day, of_day[day])
    newest_ms = max((known[each.event].at_ms + each.delay_ms for each in stream), default=-1)
    recomputed = as_batch(with_gaps(Reporter(board, 2).report(min(newest_ms, labels_to_ms))), 0)
    wanted = figures_of(RecordWriter(FIGURES).encode(recomputed)) if recomputed.length else {}
    assert figures_of(list(published(broker).values())) == wanted
    final = {each.event: each.label for each in in_order}
    assert len(wanted) >= 12 * any(label is not None for label in final.values())


def _run(
    broker: MemoryBroker, events: Sequence[Event], examples: Sequence[Example], predicted: LedgerReport
) -> QualityStage:
    broker.append(Output(EXAMPLES, [b"k"] * len(examples), WRITER.encode(batch_of(events, examples)), 0))
    broker.append(Output(JOIN_CHANGELOG, [b"0"], [encode_report(predicted)], 0))
    loop, _ = start(broker)
    while batches := loop.poll(0):
        loop.handle(batches)
    loop.checkpoint(loop.partitions)
    assert isinstance(loop.work, QualityStage)
    return loop.work


def test_days_past_the_horizon_leave_the_state_and_keep_their_figures() -> None:
    known = [Event(day * DAY_MS, 1, 0, "champion", 0.9, None) for day in range(120)]
    broker, sizes = MemoryBroker(1), []
    nothing = np.zeros(SIZE, dtype=np.int64)
    for start_day in range(0, 120, 20):
        examples = [Example(day, 1, float(day % 2), 7 * DAY_MS) for day in range(start_day, start_day + 20)]
        stage = _run(broker, known, examples, LedgerReport(nothing, 0, (start_day + 27) * DAY_MS))
        assert stage.state is not None
        sizes.append((len(stage.state.board.remembered), len(published(broker, QUALITY_CHANGELOG))))
    assert max(sizes[3:]) == sizes[-1] == sizes[3], "what is kept no longer grows"
    assert sizes[-1][0] <= 32 + 7
    shown = figures_of(list(published(broker).values()))
    assert shown["delayed|fraud|3|champion|0|30||base_rate"][0] == 0.0
    assert shown["delayed|fraud|3|champion|119|7||base_rate"][3] is False
    # What is newest still changes; what is forgotten does not.
    _run(broker, known, [Example(118, 2, 1.0, 7 * DAY_MS), Example(0, 2, 1.0, 7 * DAY_MS)], LedgerReport(nothing, 0, 0))
    shown = figures_of(list(published(broker).values()))
    assert shown["delayed|fraud|3|champion|118|7||base_rate"][0] == 1.0
    assert shown["delayed|fraud|3|champion|0|30||base_rate"][0] == 0.0


def test_a_declaration_that_changed_and_a_state_that_cannot_be_read_are_made_anew() -> None:
    known = [Event(each * DAY_MS, 1, each % 2, "champion", 0.9, 0.3) for each in range(4)]
    examples = [Example(each, 1, 1.0, DAY_MS) for each in range(4)]
    broker = MemoryBroker(1)
    stage = _run(broker, known, examples, LedgerReport(np.zeros(SIZE, dtype=np.int64), 0, 9 * DAY_MS))
    before, rows = figures_of(list(published(broker).values())), published(broker, QUALITY_CHANGELOG)
    key = next(key for key in rows if b"delayed" in key)
    broker.append(Output(QUALITY_CHANGELOG, [key], [b"\0\0\0\1nonsense"], 0))
    for declared in (DECLARED, replace(DECLARED, online_share=0.25), MeasuredConfiguration((3, 30), "card", "", 2)):
        loop, _ = start(broker, declared)
        loop.poll(0)
        loop.checkpoint(loop.partitions)
        assert isinstance(loop.work, QualityStage)
        assert loop.work.state is not None
        assert stage.state is not None
        assert len(loop.work.state.board.remembered) == len(stage.state.board.remembered)
        if declared == DECLARED:
            assert figures_of(list(published(broker).values())) == before
            assert published(broker, QUALITY_CHANGELOG).keys() == rows.keys()
    left = joined({key: value for key, value in published(broker, QUALITY_CHANGELOG).items() if key != b"m"})
    assert left
    assert not [key for key in left if b"night" in key]


def test_state_of_the_layout_before_maturities_were_final_is_rebuilt_from_the_retained_examples() -> None:
    known = [Event(0, 1, 0, "champion", 0.9, 0.3)]
    examples = [Example(0, 1, 1.0, 5 * DAY_MS), Example(0, 2, 0.0, 9 * DAY_MS)]
    nothing = LedgerReport(np.zeros(SIZE, dtype=np.int64), 0, 40 * DAY_MS)
    broker = MemoryBroker(1)
    _run(broker, known, examples, nothing)
    wanted = figures_of(list(published(broker).values()))
    assert wanted["delayed|fraud|3|champion|0|7||base_rate"][0] == 1.0
    assert wanted["delayed|fraud|3|champion|0|30||base_rate"][0] == 0.0
    # Layout 2 remembered one revision an event; its marker says so.
    newest = published(broker, QUALITY_CHANGELOG)
    marker = json.loads(newest[b"m"])
    marker["fingerprint"] = json.dumps([2, *json.loads(marker["fingerprint"])[1:]])
    flat = np.array([[7], [2], [0], [9 * DAY_MS], [0]], dtype="<i8")
    for key, value in {
        **split(b"e0", zlib.compress(flat.tobytes()), 1 << 20),
        b"m": json.dumps(marker).encode(),
    }.items():
        broker.append(Output(QUALITY_CHANGELOG, [key], [value], 0))
    broker.topics.pop(QUALITY)
    _run(broker, known, [], nothing)
    assert figures_of(list(published(broker).values())) == wanted
    assert json.loads(published(broker, QUALITY_CHANGELOG)[b"m"])["fingerprint"] == DECLARED.fingerprint


def test_a_blend_is_measured_before_anybody_is_answered_by_it() -> None:
    known = [
        Event(0, 1, 0, arm, champion, 0.2) for arm, champion in (("champion", 0.6), ("blend", 0.6), ("blend", None))
    ]
    scored = batch_of(known, [Example(each, 1, 1.0, DAY_MS) for each in range(3)])
    scored.columns["score"][1:] = 0.44, 0.3
    blend = replace(MEASURED, online_share=0.4).contenders(scored)[-1]
    assert set(blend.arm) == {"blend"}
    assert blend.score.tolist() == pytest.approx([0.44, 0.44, 0.3])
    assert blend.called.tolist() == [True, True, False]
    alone = batch_of([replace(known[0], online=None)], [Example(0, 1, 1.0, DAY_MS)])
    assert "blend" not in {each.arm[0] for each in MEASURED.contenders(alone)}


def test_headlines_are_metrics_and_what_is_undefined_is_none() -> None:
    known = [Event(each * DAY_MS // 2, each, each % 2, "champion", 0.2 * each, None) for each in range(5)]
    telemetry, broker = Telemetry(), MemoryBroker(1)
    loop, _ = start(broker, metrics=QualityMetrics(telemetry))
    tally = np.zeros(SIZE, dtype=np.int64)
    tally[0] = 3
    broker.append(Output(JOIN_CHANGELOG, [b"0"], [encode_report(LedgerReport(tally, 5, 20 * DAY_MS))], 0))
    broker.append(
        Output(JOIN_CHANGELOG, [b"1", b"0|x"], [encode_report(LedgerReport(tally, 5, 15 * DAY_MS)), b"[]"], 0)
    )
    predicted = [Example(each, 1, float(each > 3), 7 * DAY_MS) for each in range(5)]
    broker.append(Output(EXAMPLES, [b"k"] * 5, WRITER.encode(batch_of(known, predicted)), 0))
    while batches := loop.poll(0):
        loop.handle(batches)
    loop.checkpoint(loop.partitions)
    of = {"arm": "champion", "model": "fraud", "version": 3, "maturity_days": 7}
    # Labels have come to day 9: the last event's day is open.
    assert telemetry.value("millstream_quality", metric="base_rate", **of) == 0.0
    assert telemetry.value("millstream_quality_as_of_seconds") == 9 * 86_400
    assert telemetry.value("millstream_labels", state="pending") == 6
    text = telemetry.exposition().decode()
    assert 'metric="auc"' not in text, "one class has no ranking"
    assert 'metric="selection_rate_gap"' in text


@given(st.binary(max_size=50), st.integers(1, 9), st.binary(max_size=20))
def test_pieces_make_the_whole_whatever_is_left_of_an_earlier_one(value: bytes, most: int, earlier: bytes) -> None:
    pieces = {**split(b"k", value + earlier, most), **split(b"k", value, most)}
    assert joined(pieces) == {b"k": value}
    if math.ceil(len(value) / most) > 1:
        del pieces[next(iter(split(b"k", value, most)))[:3] + b"\1" + b"k"]
        with pytest.raises(KeyError):
            joined(pieces)
