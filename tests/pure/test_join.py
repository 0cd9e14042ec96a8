"""The join on a store that lags behind its log: nothing lost, nothing twice, wherever it dies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes_ledger_store import FakeLedgerStore
from millstream.adapters.files.contracts import load_contract, schemas_dir
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.schema import Field, Schema
from millstream.core.batch import Batch
from millstream.core.contracts import Contract
from millstream.core.ledger.recovery import plan_recovery
from millstream.core.ledger.resolution import Policy
from millstream.core.ledger.tally import STATES, counters, decode_report
from millstream.core.quality.board import PredictionGroup
from millstream.core.quality.part import PredictionCounts
from millstream.core.quality.snapshot import decode_predicted
from millstream.errors import Misconfigured, Stop
from millstream.runtime.flow import Flow
from millstream.runtime.log.records import Records
from millstream.settings import load_settings
from millstream.stages.join.contract import examples_schema
from millstream.stages.join.statements import meaningful
from millstream.stages.join.step import Join

SETTINGS = load_settings({})
ENVELOPE = Contract.parse((schemas_dir(SETTINGS) / "examples.avsc").read_text())
SCORED = Schema("shop.scored", (Field("id", "long"), Field("at_ms", "long"), Field("score", "double")))
EXAMPLES = examples_schema(SCORED, ENVELOPE)
LABELS = load_contract(SETTINGS, "labels").schema
KINDS = ("new", "correction", "retraction")


def unknown(_: object) -> None:
    return None


SCORED_READER, LABEL_READER, EXAMPLE_READER = (RecordReader(each, unknown) for each in (SCORED, LABELS, EXAMPLES))
SCORED_WRITER, LABEL_WRITER = RecordWriter(SCORED), RecordWriter(LABELS)


def predictions(rows: Sequence[tuple[int, int]]) -> list[bytes]:
    ints = np.array(rows, dtype=np.int64).reshape(-1, 2)
    return SCORED_WRITER.encode(Batch(len(rows), {"id": ints[:, 0], "at_ms": ints[:, 1], "score": ints[:, 0] / 7}))


def labels(rows: Sequence[tuple[int, float | None, int, str, str]]) -> list[bytes]:
    events, said, known, kinds, sources = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    missing = np.array([each is None for each in said], dtype=np.bool_)
    columns = {
        "event_id": np.array([str(each) for each in events], dtype=object),
        "label": np.array([each or 0.0 for each in said]),
        "known_at_ms": np.array(known, dtype=np.int64),
        "kind": np.array(kinds, dtype=object),
        "source": np.array(sources, dtype=object),
    }
    return LABEL_WRITER.encode(Batch(len(rows), columns, {"label": missing}))


def flow(topic: str, reader: RecordReader, values: Sequence[bytes], start: int) -> Flow:
    n = len(values)
    zeros = np.zeros(n, dtype=np.int64)
    records = Records(topic, zeros, np.arange(start, start + n), zeros, [None] * n, list(values))
    decoded = reader.decode(values, 10_000)
    return Flow(records, decoded.rows, decoded.batch, tuple(decoded.rejections))


@dataclass
class Log:
    """Two topics, what a group has committed of them, and every example that was committed with it."""

    topics: dict[str, list[bytes]]
    committed: dict[str, int] = field(default_factory=lambda: {"scored": 0, "labels": 0})
    examples: list[dict[str, object]] = field(default_factory=list)

    def flows(self, span: dict[str, tuple[int, int]]) -> tuple[Flow, Flow]:
        readers = {"scored": SCORED_READER, "labels": LABEL_READER}
        made = []
        for topic, reader in readers.items():
            start, end = span.get(topic, (0, 0))
            made.append(flow(topic, reader, self.topics[topic][start:end], start))
        return made[0], made[1]

    def commit(self, keys: list[bytes], values: list[bytes], offsets: dict[str, int]) -> None:
        batch = EXAMPLE_READER.decode(values, 10_000).batch
        for row, key in enumerate(keys):
            example = {
                name: None if batch.is_null(name)[row] else column[row] for name, column in batch.columns.items()
            }
            assert key == str(example["id"]).encode() == str(example["event_id"]).encode()
            self.examples.append(example)
        self.committed.update(offsets)


def counted(batch: Batch) -> dict[PredictionGroup, PredictionCounts]:
    """Count by the parity of the id, as two models."""
    found: dict[PredictionGroup, PredictionCounts] = {}
    for event, at_ms in zip(batch.columns["id"].tolist(), batch.columns["at_ms"].tolist(), strict=True):
        seen = PredictionGroup(f"model {event % 2}", 1, "answer", at_ms % 3, "")
        found[seen] = PredictionCounts.total([found.get(seen, PredictionCounts(0, 0)), PredictionCounts(1, event)])
    return found


def start(store: FakeLedgerStore, log: Log) -> Join:
    join = Join(store, Policy(("bank",), 100), SCORED_READER, RecordWriter(EXAMPLES), "id", "at_ms", (), counted)
    plan = plan_recovery(store.offsets(), log.committed, dict.fromkeys(("scored", "labels"), range(1 << 30)))
    if plan.discard:
        join.clear()
    for topic, span in plan.replay.items():  # one topic after the other: not the order they were consumed in
        join.apply(*log.flows({topic: span}), {topic: span[1]})
    return join


says = st.tuples(
    st.integers(0, 3),
    st.sampled_from([0.0, 1.0]),
    st.integers(0, 90),
    st.sampled_from(KINDS),
    st.sampled_from(["bank", "shop"]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(says, max_size=10), st.permutations(range(4)), st.data())
def test_dying_anywhere_publishes_what_an_undisturbed_run_does(
    said: list[tuple[int, float, int, str, str]], order: list[int], data: st.DataObject
) -> None:
    topics = {
        "scored": predictions([(each, each) for each in order]),
        "labels": labels([(e, None if kind == "retraction" else v, at, kind, who) for e, v, at, kind, who in said]),
    }
    steps: list[dict[str, tuple[int, int]]] = []
    at = {"scored": 0, "labels": 0}
    while any(done < len(topics[topic]) for topic, done in at.items()):
        span = {}
        for topic, done in list(at.items()):
            end = min(len(topics[topic]), done + data.draw(st.sampled_from([3, 2, 1, 0])))
            span[topic], at[topic] = (done, end), end
        steps.append(span)
    undisturbed, crashing = Log(topics), Log(topics)
    store, other = FakeLedgerStore(), FakeLedgerStore()
    calm, join = start(store, undisturbed), start(other, crashing)
    report: dict[bytes | str, Any] = {}
    told_again: dict[bytes | str, Any] = {}
    for span in steps:
        offsets = {topic: end for topic, (_, end) in span.items()}
        joined = calm.process(*undisturbed.flows(span), 5)
        undisturbed.commit(joined.keys, joined.examples, offsets)
        calm.write(joined, offsets)
        fate = data.draw(st.sampled_from(["fine", "before commit", "before write", "disk lost", "written first"]))
        joined = join.process(*crashing.flows(span), 5)
        if fate == "written first":  # nobody does this; a store that is ahead must still come right
            join.write(joined, offsets)
        if fate in {"before commit", "written first"}:
            join = start(other, crashing)
            joined = join.process(*crashing.flows(span), 5)
        crashing.commit(joined.keys, joined.examples, offsets)
        if fate == "disk lost":
            other = FakeLedgerStore()
        if fate in {"before write", "disk lost"}:
            join = start(other, crashing)
        else:
            join.write(joined, offsets)
        # What was published last, or is yet to be, is what is known.
        for account, published in ((calm.account, report), (join.account, told_again)):
            told_now = dict(zip(*account.messages(0), strict=True))
            # How often something was said again depends on how it was cut into batches.
            states = decode_report(told_now.pop(b"0") or b"")
            published.update(told_now, states=[states.tally[: len(STATES)].tolist(), states.labels_to_ms])
            account.mark_published()
        assert told_again == report
        assert {topic: other.valid_for.get(topic, 0) for topic in crashing.committed} == crashing.committed
    assert crashing.examples == undisturbed.examples
    kept = [{key: row for key, row in each.rows.items() if key[:1] not in {b"t", b"m"}} for each in (store, other)]
    assert kept[0] == kept[1]
    assert report["states"][1] == max((at for _, _, at, _, _ in said), default=-1)
    days = [decode_predicted(value, int(key[2:])) for key, value in report.items() if isinstance(key, bytes)]
    assert sum(each.called for counts in days for each in counts.values()) == len(order)


def test_an_example_says_what_was_served_what_became_known_and_what_it_replaces() -> None:
    log = Log({"scored": predictions([(3, 10)]), "labels": labels([(3, 1.0, 1510, "new", "bank")])})
    store = FakeLedgerStore()
    join = Join(store, Policy(), SCORED_READER, RecordWriter(EXAMPLES), "id", "at_ms")
    joined = join.process(*log.flows({"scored": (0, 1), "labels": (0, 1)}), 99)
    log.commit(joined.keys, joined.examples, {})
    join.write(joined, {})
    log.topics["labels"] = labels([(3, None, 1600, "retraction", "bank")])
    joined = join.process(*log.flows({"labels": (0, 1)}), 100)
    log.commit(joined.keys, joined.examples, {})
    first, second = log.examples
    assert (first["score"], first["label"], first["label_source"], first["label_delay_s"]) == (3 / 7, 1.0, "bank", 1)
    assert (first["previous_label"], first["previous_known_at_ms"], first["joined_at_ms"]) == (None, None, 99)
    assert (second["label"], second["label_known_at_ms"]) == (None, 1600)
    assert (second["previous_label"], second["previous_known_at_ms"]) == (1.0, 1510)
    assert second["revision"] > first["revision"]  # type: ignore[operator]


def test_labels_that_say_nothing_are_turned_away() -> None:
    rows = [(1, None, 5, "new", ""), (1, 0.5, 5, "new", ""), (1, 1.0, 1 << 50, "new", ""), (1, 1.0, 5, "new", "")]
    log = Log({"scored": [], "labels": labels(rows)})
    joined = start(FakeLedgerStore(), log).process(*log.flows({"labels": (0, 4)}), 0)
    assert [(each.row, each.reason) for each in joined.labels.rejections] == [
        (0, "no-label"),
        (1, "not-allowed"),
        (2, "range"),
    ]
    assert joined.labels.rows.tolist() == [3]


def test_past_the_horizon_nothing_is_kept_and_unmatched_labels_are_told() -> None:
    rows = [(1, 1.0, 5, "new", "bank"), (9, 1.0, 20, "new", "bank"), (9, 0.0, 130, "new", "shop")]
    log = Log({"scored": predictions([(0, 0), (1, 1), (2, 60)]), "labels": labels(rows)})
    store = FakeLedgerStore()
    join = start(store, log)
    for span in ({"scored": (0, 3), "labels": (0, 2)}, {"labels": (2, 3)}):
        join.write(join.process(*log.flows(span), 0), {})
    assert join.sweep(100).forgotten == 0
    swept = join.sweep(155, limit=2)
    assert (swept.forgotten, swept.retired, swept.unmatched, swept.more) == (1, 1, [], True)
    while swept.more:
        swept = join.sweep(155, limit=2)
    join.write(join.process(*log.flows({"scored": (2, 3)}), 0), {})
    join = Join(store, Policy(("bank",), 100), SCORED_READER, RecordWriter(EXAMPLES), "id", "at_ms")
    swept = join.sweep(1000)
    assert (swept.forgotten, swept.retired, swept.unmatched, swept.more) == (1, 0, [b"9"], False)
    report = counters(join.account.report.tally)
    assert {name: count for name, count in report.items() if count} == {
        "repeated_predictions": 1,
        "forgotten": 2,
        "retired": 1,
        "unmatched": 1,
    }
    assert not [key for key in store.rows if key[:1] in {b"p", b"l", b"t"}]
    assert not join.sweep(1000).more
    join.write(join.process(*log.flows({"scored": (0, 1)}), 0), {})  # older than what was swept
    assert join.sweep(1000).forgotten == 1


def test_a_full_disk_and_a_schema_that_is_gone_stop_the_stage() -> None:
    log = Log({"scored": predictions([(1, 1)]), "labels": labels([(1, 1.0, 5, "new", "bank")])})
    store = FakeLedgerStore()
    join = start(store, log)
    joined = join.process(*log.flows({"scored": (0, 1)}), 0)
    store.full = True
    with pytest.raises(Stop, match="full"):
        join.write(joined, {})
    store.full = False
    join.write(joined, {})
    later = Schema("shop.scored", (*SCORED.fields, Field("more", "double", default=0.0)))
    join = Join(store, Policy(), RecordReader(later, unknown), RecordWriter(EXAMPLES), "id", "at_ms")
    with pytest.raises(Stop, match="event '1' in the ledger cannot be read"):
        join.process(*log.flows({"labels": (0, 1)}), 0)
    with pytest.raises(Misconfigured, match="Rename"):
        examples_schema(Schema("x.y", (Field("label", "double"),)), ENVELOPE)


@pytest.mark.parametrize("event_id", ["9000002.0", "09000003", " 9000004", "9.000005e6", "", "+7", "7\n8", "1" * 20])
def test_a_label_whose_id_no_event_can_have_is_rejected(event_id: str) -> None:
    ids = ["9000001", event_id, "-3", "0"]
    columns = {
        "event_id": np.array(ids, dtype=object),
        "label": np.ones(4),
        "known_at_ms": np.full(4, 5),
        "kind": np.array(["new"] * 4, dtype=object),
        "source": np.array(["bank"] * 4, dtype=object),
    }
    offered = flow("labels", LABEL_READER, LABEL_WRITER.encode(Batch(4, columns)), 0)
    kept = meaningful(offered, whole_ids=True)
    assert kept.batch.columns["event_id"].tolist() == ["9000001", "-3", "0"]
    assert [(each.row, each.reason, each.field) for each in kept.rejections] == [(1, "event-id", "event_id")]
    assert meaningful(offered).batch.length == 4
