"""What was believed of past events: at each moment, what the ledger resolves of the labels known by then."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from millstream.core.ledger.label_sets import LabelSets, stamps
from millstream.core.ledger.label_timeline import label_timeline
from millstream.core.ledger.resolution import Policy, resolve

EVENTS = 3
POLICY = Policy(("bank",), 100)
SOURCES = np.array([*POLICY._hashes, 1, 2])  # the trusted one, and two that are not named

statement = st.tuples(
    st.integers(0, EVENTS - 1), st.integers(0, 2), st.integers(0, 130), st.integers(0, 2), st.booleans()
)


@given(st.lists(statement, max_size=12), st.lists(st.integers(0, 60), min_size=EVENTS, max_size=EVENTS))
def test_beliefs_are_what_is_resolved_of_the_labels_known_by_then(
    said: list[tuple[int, int, int, int, bool]], times: list[int]
) -> None:
    owners, sources, known, kinds, positive = (np.array(each) for each in zip(*said, strict=True)) if said else [[]] * 5
    every = LabelSets(
        np.array(owners, dtype=np.int64),
        SOURCES[np.array(sources, dtype=np.int64)],
        stamps(np.array(known, dtype=np.int64), np.array(kinds, dtype=np.int64), np.array(positive, dtype=np.bool_)),
    )
    times_ms = np.array(times, dtype=np.int64)
    found = label_timeline(POLICY, every, times_ms)
    assert (np.diff(found.events) >= 0).all()
    there = np.ones(EVENTS, dtype=np.bool_)
    for at_ms in range(132):
        mask = every.known_at_ms <= at_ms
        known_then = LabelSets(every.owners[mask], every.sources[mask], every.stamps[mask])
        settled = LabelSets.empty().joined(known_then).settled(there, times_ms, POLICY.horizon_ms)
        resolved = resolve(POLICY, settled, there)
        for event in range(EVENTS):
            rows = np.flatnonzero((found.events == event) & (found.due_ms <= at_ms))
            last = rows[-1] if len(rows) else None
            label = -1 if last is None or np.isnan(found.label[last]) else int(found.label[last])
            assert label == resolved.labels[event]
            if label >= 0 and last is not None:
                assert found.known_at_ms[last] == resolved.known_at_ms[event] <= found.due_ms[last]
    for event in range(EVENTS):
        mine = found.events == event
        assert (np.diff(found.revisions[mine]) > 0).all()
        assert (np.diff(found.due_ms[mine]) > 0).all()


def test_some_of_the_events() -> None:
    said = LabelSets(
        np.array([0, 2, 2]),
        np.array([1, 1, 1]),
        stamps(np.array([5, 6, 7]), np.zeros(3, int), np.array([1, 0, 1], bool)),
    )
    taken = label_timeline(Policy(), said, np.zeros(3, dtype=np.int64)).take(np.array([1, 2]))
    assert (taken.events.tolist(), taken.label.tolist(), taken.due_ms.tolist()) == ([1, 1], [0.0, 1.0], [6, 7])
