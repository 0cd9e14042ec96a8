"""From label records to figures: at each maturity what was believed then counts, in whatever order records arrive."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes_ledger_store import FakeLedgerStore
from millstream.adapters.files.contracts import load_contract, schemas_dir
from millstream.core.avro.decode import RecordReader
from millstream.core.avro.encode import RecordWriter
from millstream.core.avro.schema import Field, Schema
from millstream.core.batch import Batch
from millstream.core.contracts import Contract
from millstream.core.ledger.label_sets import KINDS, source_hashes
from millstream.core.ledger.resolution import Policy
from millstream.core.metrics import DAY_MS
from millstream.core.quality.board import Board, Examples, Scores
from millstream.core.quality.scored_records import _histories
from millstream.runtime.flow import Flow
from millstream.runtime.log.records import Records
from millstream.settings import load_settings
from millstream.stages.join.contract import examples_schema
from millstream.stages.join.step import Join

SETTINGS = load_settings({})
SCORED = Schema("shop.scored", (Field("id", "long"), Field("at_ms", "long"), Field("score", "double")))
EXAMPLES = examples_schema(SCORED, Contract.parse((schemas_dir(SETTINGS) / "examples.avsc").read_text()))
LABELS = load_contract(SETTINGS, "labels").schema
READERS = {name: RecordReader(each, lambda _: None) for name, each in (("s", SCORED), ("l", LABELS), ("e", EXAMPLES))}
MATURITIES = (7, 30)
PRECEDENCE = ("investigator", "bank")
AT_MS = (0, 5 * DAY_MS + 17)
"""Event times of the events."""


class Says(NamedTuple):
    """A record of the topic of labels; the age is in milliseconds since the event."""

    event: int
    age_ms: int
    label: int
    kind: str
    source: str


ages = st.builds(
    lambda days, ms: days * DAY_MS + ms, st.sampled_from([0, 3, 6, 7, 8, 29, 30, 31]), st.sampled_from([-1, 0, 1])
)
says = st.builds(
    Says,
    st.integers(0, 1),
    ages,
    st.integers(0, 1),
    st.sampled_from(KINDS),
    st.sampled_from(["investigator", "bank", "rumour"]),
)


def believed(stated: list[Says], event: int, by_ms: int) -> int | None:
    """Return the label believed this long after the event, in plain words."""
    last: dict[str, Says] = {}
    for each in sorted(stated, key=lambda s: (s.age_ms, KINDS.index(s.kind), s.label)):
        if each.event == event and each.age_ms <= by_ms and AT_MS[event] + each.age_ms >= 0:
            last[each.source] = each
    standing = [each for each in last.values() if each.kind != "retraction"]
    trust = {source: -place for place, source in enumerate(PRECEDENCE)}
    best = max(
        standing,
        default=None,
        key=lambda s: (trust.get(s.source, -9), s.age_ms, KINDS.index(s.kind), s.label, source_hashes([s.source])[0]),
    )
    return None if best is None else best.label


def _flow(reader: RecordReader, values: list[bytes]) -> Flow:
    zeros = np.zeros(len(values), dtype=np.int64)
    decoded = reader.decode(values, 1 << 20)
    return Flow(Records("", zeros, zeros, zeros, [None] * len(values), values), decoded.rows, decoded.batch)


def _values(records: list[Says | int]) -> tuple[list[bytes], list[bytes]]:
    """Return predictions (events as numbers) and labels as records."""
    events = np.array([each for each in records if isinstance(each, int)], dtype=np.int64)
    at_ms = np.array([AT_MS[each] for each in events.tolist()], dtype=np.int64)
    scored = Batch(len(events), {"id": events, "at_ms": at_ms, "score": np.full(len(events), 0.5)})
    stated = [each for each in records if isinstance(each, Says)]
    columns = {
        "event_id": np.array([str(each.event) for each in stated], dtype=object),
        "label": np.array([float(each.label) for each in stated]),
        "known_at_ms": np.array([AT_MS[each.event] + each.age_ms for each in stated], dtype=np.int64),
        "kind": np.array([each.kind for each in stated], dtype=object),
        "source": np.array([each.source for each in stated], dtype=object),
    }
    return RecordWriter(SCORED).encode(scored), RecordWriter(LABELS).encode(Batch(len(stated), columns))


def _examples(values: list[bytes]) -> Examples:
    batch = READERS["e"].decode(values, 1 << 20).batch
    n = batch.length
    name = np.full(n, "m", dtype=object)
    return Examples(
        batch.columns["id"],
        batch.columns["revision"],
        np.where(batch.is_null("label"), -1, batch.columns["label"]).astype(np.int64),
        batch.columns["at_ms"],
        batch.columns["label_known_at_ms"],
        batch.columns["id"],
        np.full(n, "", dtype=object),
        [Scores(name, np.ones(n, np.int64), name, batch.columns["score"], batch.columns["score"] > 0.4)],
        _histories(batch),
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(says, max_size=7), st.data())
def test_records_in_any_order_and_batches_count_at_each_maturity_what_was_believed_by_then(
    stated: list[Says], data: st.DataObject
) -> None:
    repeated = [*stated, *(data.draw(st.lists(st.sampled_from(stated), max_size=3)) if stated else [])]
    log: list[Says | int] = data.draw(st.permutations([0, 1, *repeated]))
    join = Join(
        FakeLedgerStore(),
        Policy(PRECEDENCE, MATURITIES[-1] * DAY_MS),
        READERS["s"],
        RecordWriter(EXAMPLES),
        "id",
        "at_ms",
    )
    published: list[bytes] = []
    while log:
        size = data.draw(st.integers(1, 5))
        scored, labels = _values(log[:size])
        joined = join.process(_flow(READERS["s"], scored), _flow(READERS["l"], labels), 0)
        join.write(joined, {})
        published += joined.examples
        log = log[size:]
    board = Board(MATURITIES)
    for value in data.draw(st.permutations(published)):
        board.update(_examples([value]))
    board.settle()
    for place, days in enumerate(MATURITIES):
        for event in range(2):
            at = [
                cohort.counts[:2]
                for key, cohort in board.cohorts.items()
                if key.series.protocol == "delayed" and key.day == AT_MS[event] // DAY_MS and key.maturity <= place
            ]
            label = believed(stated, event, days * DAY_MS)
            wanted = (0, 0) if label is None else (1 - label, label)
            assert tuple(map(sum, zip(*at, strict=True))) == wanted if at else wanted == (0, 0)


def test_a_correction_that_arrives_before_its_label_leaves_the_label_in_the_figures_of_its_time() -> None:
    join = Join(FakeLedgerStore(), Policy((), 30 * DAY_MS), READERS["s"], RecordWriter(EXAMPLES), "id", "at_ms")
    board = Board(MATURITIES)
    correction = Says(0, 9 * DAY_MS, 0, "correction", "bank")
    label = Says(0, 3 * DAY_MS, 1, "new", "bank")
    for records in ([0, correction], [label]):
        scored, labels = _values(records)
        joined = join.process(_flow(READERS["s"], scored), _flow(READERS["l"], labels), 0)
        join.write(joined, {})
        board.update(_examples(joined.examples))
    board.settle()
    counts = {key.maturity: each.counts[:2] for key, each in board.cohorts.items() if key.series.protocol == "delayed"}
    assert counts == {0: (0, 1), 1: (1, -1)}, "7 days: one positive; 30 days: one negative in its place"
