"""The label ledger against a plain dictionary: order, batches and repetition of what arrives change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.core.batch import Rows
from millstream.core.ledger.fold import LedgerEntries, fold
from millstream.core.ledger.horizon import expired_events
from millstream.core.ledger.label_sets import KINDS, LabelSets, source_hashes, stamps
from millstream.core.ledger.recovery import Recovery, plan_recovery
from millstream.core.ledger.resolution import Policy, resolve
from millstream.core.ledger.rows import decode_tally, encode_tally
from millstream.core.ledger.tally import SIZE, STATES, counters, delay_quantile_s, of_batch, of_entries

SOURCES = ("investigator", "chargeback", "customer", "rumour")
POLICY = Policy(("investigator", "chargeback"), horizon_ms=50)
EVENTS = 4


@dataclass(frozen=True)
class Says:
    """One statement, or a prediction where ``kind`` is empty (then ``at`` is the event time)."""

    event: int
    at: int
    kind: str = ""
    label: int = 0
    source: str = ""


says = st.builds(
    Says,
    st.integers(0, EVENTS - 1),
    st.integers(0, 80),
    st.sampled_from(KINDS),
    st.integers(0, 1),
    st.sampled_from(SOURCES),
)
event_times = st.tuples(*[st.integers(0, 20)] * EVENTS)


def label_sets(statements: Sequence[Says]) -> LabelSets:
    ints = np.array(
        [(each.event, each.at, KINDS.index(each.kind), each.label) for each in statements], np.int64
    ).reshape(-1, 4)
    return LabelSets(
        ints[:, 0], source_hashes([s.source for s in statements]), stamps(ints[:, 1], ints[:, 2], ints[:, 3] == 1)
    )


@dataclass
class Ledger:
    """The rows of four events, kept as bytes between micro-batches, and what was published last."""

    rows: list[bytes | None] = field(default_factory=lambda: [None] * EVENTS)
    times: Rows = field(default_factory=lambda: np.zeros(EVENTS, dtype=np.int64))
    predicted: np.ndarray = field(default_factory=lambda: np.zeros(EVENTS, dtype=np.bool_))
    published: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    revisions: dict[int, list[int]] = field(default_factory=dict)
    tally: Rows = field(default_factory=lambda: np.zeros(SIZE, dtype=np.int64))

    @property
    def entries(self) -> LedgerEntries:
        return LedgerEntries(self.predicted, self.times, LabelSets.decode(self.rows))

    def take(self, batch: Sequence[Says]) -> None:
        arriving = np.zeros(EVENTS, dtype=np.bool_)
        times = np.zeros(EVENTS, dtype=np.int64)
        for each in batch:
            if not each.kind and not arriving[each.event]:
                arriving[each.event], times[each.event] = True, each.at
        folded = fold(POLICY, self.entries, arriving, times, label_sets([each for each in batch if each.kind]))
        for row in folded.publish.tolist():
            was = (int(folded.before.labels[row]), int(folded.before.known_at_ms[row]), int(folded.before.sources[row]))
            if was[0] >= 0:
                assert self.published[row] == was, "an example must say what it replaces"
            else:
                assert self.published.get(row, was)[0] == -1
            self.published[row] = (
                int(folded.after.labels[row]),
                int(folded.after.known_at_ms[row]),
                int(folded.after.sources[row]),
            )
            self.revisions.setdefault(row, []).append(int(folded.versions[row]))
        sets = folded.entries.labels.encode(EVENTS)
        self.rows = [(sets[i] or None) if folded.relabelled[i] else row for i, row in enumerate(self.rows)]
        self.predicted, self.times = folded.entries.predicted, folded.entries.event_time_ms
        self.tally += of_batch(folded, int(folded.arrived.sum()), folded.new_labels)


def believed(statements: Sequence[Says], event: int, event_time: int) -> tuple[int, int, str] | None:
    """The definition, in plain words: last in-time word of each source, most trusted, latest, then by hash."""
    last: dict[str, Says] = {}
    for each in statements:
        if each.event == event and each.at - event_time <= POLICY.horizon_ms:
            bare = replace(each, label=0) if each.kind == "retraction" else each
            order = (bare.at, KINDS.index(bare.kind), bare.label)
            kept = last.get(each.source)
            if kept is None or order > (kept.at, KINDS.index(kept.kind), kept.label):
                last[each.source] = bare
    standing = [each for each in last.values() if each.kind != "retraction"]
    if not standing:
        return None
    trusted = {"investigator": 2, "chargeback": 1}
    best = max(
        standing,
        key=lambda s: (
            trusted.get(s.source, 0),
            s.at,
            KINDS.index(s.kind),
            s.label,
            int(source_hashes([s.source])[0]),
        ),
    )
    return best.label, best.at, best.source


@settings(max_examples=400, deadline=None)
@given(st.lists(says, max_size=14), event_times, st.data())
def test_any_order_any_batches_any_repetition_end_alike(
    statements: list[Says], times: tuple[int, ...], data: st.DataObject
) -> None:
    present = data.draw(st.sets(st.integers(0, EVENTS - 1)))
    everything = [Says(event, times[event]) for event in sorted(present)] + statements
    repeated = everything + data.draw(st.lists(st.sampled_from(everything), max_size=6) if everything else st.just([]))
    shuffled = data.draw(st.permutations(repeated))
    ledger, at = Ledger(), 0
    while at < len(shuffled):
        size = data.draw(st.integers(1, 6))
        ledger.take(shuffled[at : at + size])
        at += size
    whole = Ledger()
    whole.take(everything)
    for event in range(EVENTS):
        wanted = believed(statements, event, times[event]) if event in present else None
        for each in (ledger, whole):
            label, known_at, source = each.published.get(event, (-1, -1, 0))
            found = None if label < 0 else (label, known_at, source)
            assert found == (wanted and (*wanted[:2], int(source_hashes([wanted[2]])[0])))
        revisions = ledger.revisions.get(event, [])
        assert revisions == sorted(set(revisions)), "a later example has a greater revision"
        if wanted:
            sets = LabelSets.decode(ledger.rows)
            assert revisions[-1] <= int(sets.versions(EVENTS)[event])
    assert ledger.rows == whole.rows
    assert ledger.tally.tolist() == whole.tally.tolist()
    assert (
        ledger.tally.tolist()
        == of_entries(ledger.entries, resolve(POLICY, ledger.entries.labels, ledger.predicted)).tolist()
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(says, min_size=1, max_size=12), event_times, st.data())
def test_after_a_silent_replay_in_other_batches_the_ledger_publishes_what_it_would_have(
    statements: list[Says], times: tuple[int, ...], data: st.DataObject
) -> None:
    log = [*(Says(event, times[event]) for event in range(EVENTS)), *statements]
    log = data.draw(st.permutations(log))
    stored, committed = sorted((data.draw(st.integers(0, len(log))), data.draw(st.integers(0, len(log)))))
    undisturbed, crashed = Ledger(), Ledger()
    for each in log[:committed]:
        undisturbed.take([each])
    crashed.take(log[:stored])
    crashed.take(log[stored:committed])  # one batch where there had been many: nothing of it goes out
    crashed.published = dict(undisturbed.published)
    crashed.revisions = {event: list(revisions) for event, revisions in undisturbed.revisions.items()}
    for ledger in (undisturbed, crashed):
        for each in log[committed:]:
            ledger.take([each])
    assert crashed.published == undisturbed.published
    assert crashed.revisions == undisturbed.revisions
    assert crashed.rows == undisturbed.rows


def test_a_set_that_loses_a_statement_and_gains_one_with_its_stamp_is_stored() -> None:
    """With the prediction, one of two statements of a source is dropped; another source's has the same stamp."""
    early = [Says(1, 1, "new", 0, "chargeback"), Says(1, 1, "new", 1, "chargeback")]
    together = [Says(1, 0), Says(1, 1, "new", 0, "investigator")]
    ledger, undisturbed = Ledger(), Ledger()
    ledger.take(early)
    ledger.take(together)
    for each in [*early, *together]:
        undisturbed.take([each])
    assert ledger.rows == undisturbed.rows
    assert LabelSets.decode(ledger.rows).counts(EVENTS).tolist() == [0, 2, 0, 0]


def test_a_retraction_before_its_label_and_a_label_before_its_prediction() -> None:
    ledger = Ledger()
    ledger.take([Says(0, 9, "retraction", 0, "chargeback")])
    ledger.take([Says(0, 5)])
    assert not ledger.published
    ledger.take([Says(0, 8, "new", 1, "chargeback")])
    assert not ledger.published
    ledger.take([Says(0, 10, "correction", 1, "chargeback")])
    assert ledger.published[0][:2] == (1, 10)
    assert counters(ledger.tally)["labelled"] == 1
    assert delay_quantile_s(ledger.tally, 0.5) == 0


def test_conflicts_are_counted_and_the_trusted_source_wins_though_it_spoke_first() -> None:
    ledger = Ledger()
    ledger.take([Says(1, 0), Says(1, 3, "new", 0, "investigator"), Says(1, 30, "new", 1, "rumour")])
    assert ledger.published[1][:2] == (0, 3)
    assert counters(ledger.tally)["conflicts"] == 1
    ledger.take([Says(1, 31, "retraction", 0, "investigator")])
    assert ledger.published[1][:2] == (1, 30)
    assert {name: counters(ledger.tally)[name] for name in STATES} == {
        "pending": 0,
        "labelled": 1,
        "retracted": 0,
        "waiting": 0,
        "conflicts": 0,
    }


def test_past_the_horizon_predictions_are_forgotten_or_retired_and_waiting_labels_reported() -> None:
    ledger = Ledger()
    ledger.take([Says(0, 10), Says(1, 10), Says(1, 60, "new", 1, "rumour"), Says(2, 10, "new", 1, "rumour")])
    ledger.take([Says(0, 61, "new", 1, "rumour")])  # a millisecond too late to count
    assert set(ledger.published) == {1}
    resolved = resolve(POLICY, ledger.entries.labels, ledger.predicted)
    assert not expired_events(POLICY, ledger.entries, resolved, 60).dropped.any()
    then = expired_events(POLICY, ledger.entries, resolved, 61)
    assert then.forgotten.tolist() == [True, False, False, False]
    assert then.retired.tolist() == [False, True, False, False]
    assert then.unmatched.tolist() == [False, False, True, False]


def test_delays_are_told_to_a_32nd() -> None:
    delays_s = np.array([0, 1, 6 * 86_400, 7 * 86_400, 180 * 86_400, 10_000 * 86_400])
    n = len(delays_s)
    sets = LabelSets(
        np.arange(n), np.zeros(n, dtype=np.int64), stamps(delays_s * 1000, np.zeros(n, dtype=np.int64), delays_s > 0)
    )
    entries = LedgerEntries(np.ones(n, dtype=np.bool_), np.zeros(n, dtype=np.int64), sets)
    tally = of_entries(entries, resolve(POLICY, sets, entries.predicted))
    for position, delay_s in enumerate(delays_s.tolist()):
        told = delay_quantile_s(tally, (position + 1) / n)
        assert told <= delay_s <= told + (1 + told) / 32
    assert decode_tally(encode_tally(tally), SIZE).tolist() == tally.tolist()
    assert not decode_tally(None, SIZE).any()


@given(st.integers(0, 9), st.one_of(st.none(), st.integers(0, 9)), st.integers(0, 9))
def test_recovery_ends_at_the_committed_offsets_whatever_the_disk_holds(
    stored: int, committed: int | None, beginning: int
) -> None:
    end = 9
    plan = plan_recovery(
        {"a": stored, "b": 3}, {"a": committed, "b": end}, {"a": range(beginning, end), "b": range(end)}
    )
    if committed is not None:
        assert plan.go_on["a"] == committed
        assert plan.discard == (stored > committed)
    valid = 0 if plan.discard else stored
    start, stop = plan.replay.get("a", (plan.go_on["a"],) * 2)
    assert stop == plan.go_on["a"]
    assert start - valid == plan.lost.get("a", 0) or start == stop
    assert plan.replay["b"] == ((0 if plan.discard else 3), end)


def test_a_ledger_of_topics_that_were_made_anew_is_thrown_away() -> None:
    plan = plan_recovery({"a": 120, "b": 3}, {"a": None, "b": None}, {"a": range(2), "b": range(9)})
    assert plan == Recovery(True, {"b": (0, 3)}, {"a": 0, "b": 3}, {})


def test_a_policy_says_what_is_wrong_with_it() -> None:
    with pytest.raises(ValueError, match="named twice"):
        Policy(("a", "a"))
    with pytest.raises(ValueError, match="must be positive"):
        Policy(horizon_ms=0)
