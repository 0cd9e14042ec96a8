"""Every invariant that topics alone can show, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from millstream.topology import StagePlan
from millstream_lab.chaos import checker
from millstream_lab.chaos.checker_watch import check_aborted_reads, check_commits
from millstream_lab.chaos.history import History
from millstream_lab.chaos.observer import Observer
from millstream_lab.chaos.oracle import ReferenceRun


def check_topics(
    stages: Sequence[StagePlan],
    expected: Mapping[str, ReferenceRun],
    history: History,
    observer: Observer,
    published: Mapping[str, int],
) -> dict[str, list[str]]:
    """Return what is wrong, by invariant; none where it holds.

    Parameters
    ----------
    expected : mapping of str to ReferenceRun
        By stage name.
    observer : Observer
        It has stopped looking.
    published : mapping of str to int
        How many records of each kind of `millstream_lab.chaos.stream.ChaosStream`.
    """
    findings: dict[str, list[str]] = {"readable": list(history.unreadable)}
    for plan in stages:
        undisturbed = expected[plan.name]
        samples = [each for each in observer.samples if each.topic == plan.input]
        for name, wrong in {
            **checker.check_outcomes(plan, undisturbed, history),
            "as many as published": checker.check_published(plan, published, history),
            "features and scores equal": checker.check_values(plan, undisturbed, history),
            "late at a later stage": checker.check_late(plan, history),
            "order per key": checker.check_order(plan, history),
            "commit after outcome": check_commits(plan, samples, undisturbed, history),
        }.items():
            findings.setdefault(name, []).extend(wrong)
    return findings | {
        "predictions equal scored": checker.check_predictions(history),
        "aborted read": check_aborted_reads(observer, history),
        "bytes of dead letters": checker.check_bytes(history),
    }
