"""What is held of several partitions comes out in the order of its timestamps, and of each partition in its own."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from millstream.runtime.alignment import Aligned

stamps = st.lists(st.integers(0, 20), max_size=12)


@given(st.lists(st.tuples(st.integers(0, 3), stamps), max_size=6), st.lists(st.integers(1, 9), max_size=30))
def test_nothing_is_lost_or_passes_its_own_and_the_oldest_come_first(
    added: list[tuple[int, list[int]]], takes: list[int]
) -> None:
    aligned: Aligned[tuple[int, int]] = Aligned()
    whole: dict[int, list[int]] = {}
    for partition, some in added:
        if not some:
            continue
        known = whole.setdefault(partition, [])
        aligned.add(("t", partition), [(partition, len(known) + i) for i in range(len(some))], np.array(some))
        known += some
    running = {p: [max(each[: i + 1]) for i in range(len(each))] for p, each in whole.items()}
    assert len(aligned) == sum(map(len, whole.values()))
    found: list[tuple[int, int]] = []
    for most in [*takes, 1000]:
        part = aligned.take(most)
        assert len(part) == min(most, len(aligned) + len(part))
        found += part
    assert len(aligned) == 0
    for partition, each in running.items():
        assert [at for p, at in found if p == partition] == list(range(len(each)))
    ages = [running[partition][at] for partition, at in found]
    assert ages == sorted(ages)


def test_of_one_timestamp_places_are_taken_at_the_same_pace() -> None:
    aligned: Aligned[str] = Aligned()
    aligned.add(("t", 0), list("abcd"), np.full(4, 5))
    aligned.add(("t", 1), list("xy"), np.full(2, 5))
    assert "".join(aligned.take(3) + aligned.take(10)) == "axbcyd"


def test_what_belongs_to_others_now_is_forgotten() -> None:
    aligned: Aligned[str] = Aligned()
    for topic in ("t", "u"):
        for partition in (0, 1):
            aligned.add((topic, partition), [f"{topic}{partition}"], np.array([1]))
    aligned.drop([1])
    assert aligned.count(("u", 0)) == 1
    assert aligned.count(("u", 1)) == 0
    assert aligned.take(9) == ["t0", "u0"]
