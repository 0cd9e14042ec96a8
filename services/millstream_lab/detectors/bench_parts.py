"""The parts of ``millstream drift bench``: how each is measured, and its figures as tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

from millstream.core.drift.budget import Budget
from millstream_lab.tables import Table

Step = Callable[[], None]


@dataclass(frozen=True, slots=True)
class BenchSize:
    """How much to measure: streams and changes of each kind, drift-free years, and at which budgets."""

    runs: int
    years: int
    budgets: Mapping[str, Budget]


@dataclass(frozen=True, slots=True)
class Part:
    """One part.

    Parameters
    ----------
    title, method : str
    steps : callable
        How many steps there will be.
    measure : callable
        Return JSON values; calls its second argument after each step.
    tables : callable
        From those values.
    """

    title: str
    method: str
    steps: Callable[[BenchSize], int]
    measure: Callable[[BenchSize, Step], Any]
    tables: Callable[[Any], list[Table]]


def _indices(_effort: BenchSize, step: Step) -> list[dict[str, Any]]:
    from millstream_lab.detectors.river_documented import DOCUMENTED

    found = []
    for each in DOCUMENTED:
        detector, drifts, warnings = each.make(), [], []
        for row, x in enumerate(each.stream().tolist()):
            detector.update(x)
            if detector.drift_detected:
                drifts.append(row)
            if getattr(detector, "warning_detected", False):
                warnings.append(row)
        found.append(
            {
                "detector": each.name,
                "documented": list(each.drifts),
                "found": drifts,
                "documented_warning": each.first_warning,
                "warning": warnings[:1],
            }
        )
    step()
    return found


def _indices_tables(found: list[dict[str, Any]]) -> list[Table]:
    columns = "detector", "drift at, documented", "here", "first warning, documented", "here"
    rows = [
        (
            each["detector"],
            ", ".join(map(str, each["documented"])),
            ", ".join(map(str, each["found"])),
            "" if each["documented_warning"] is None else str(each["documented_warning"]),
            "".join(map(str, each["warning"])),
        )
        for each in found
    ]
    return [Table("Where each detector finds drift", columns, rows)]


def _streams(effort: BenchSize, step: Step) -> list[dict[str, Any]]:
    from millstream_lab.detectors.drift_streams import circles, sine1
    from millstream_lab.detectors.evaluation import CONTENDERS, VALUE_CONTENDERS, levels_table, table

    found = []
    for make in (sine1, circles):
        found += table(make, partial(make, every=10**9), CONTENDERS, 100_000, effort.runs)
        step()
    found += levels_table(VALUE_CONTENDERS, 100_000, effort.runs)
    step()
    return [asdict(each) for each in found]


def _streams_tables(found: list[dict[str, Any]]) -> list[Table]:
    columns = "detector", "setting", "calibrated", "drifts", "missed", "false", "median delay"
    made = []
    for stream in dict.fromkeys(each["stream"] for each in found):
        rows = [
            (
                each["detector"],
                f"{each['setting']:.4g}",
                "yes" if each["calibrated"] else "as it comes",
                str(each["drifts"]),
                str(each["missed"]),
                str(each["false"]),
                f"{each['median_delay']:.0f}",
            )
            for each in found
            if each["stream"] == stream
        ]
        made.append(Table(stream, columns, rows))
    return made


def _meaning(effort: BenchSize, step: Step) -> list[dict[str, Any]]:
    from millstream.core.drift.declared import Monitors
    from millstream_lab.detectors.monitor_trials import meaning
    from millstream_lab.detectors.simulated_traffic import TrafficSettings

    return [
        {"budget": words, **asdict(each)}
        for words, budget in effort.budgets.items()
        for each in meaning(TrafficSettings(), Monitors(budget), effort.runs, progress=step)
    ]


def _meaning_tables(found: list[dict[str, Any]]) -> list[Table]:
    kinds = "data", "score", "score online", "concept", "concept online"
    rows = [
        (each["change"], each["budget"], str(each["runs"]), *(str(each["opened"].get(kind, 0)) for kind in kinds))
        for each in found
    ]
    return [Table("Runs in which an incident of the kind opened", ("change", "budget", "runs", *kinds), rows)]


def _calm(effort: BenchSize, step: Step) -> list[dict[str, Any]]:
    from millstream.core.drift.declared import Monitors
    from millstream_lab.detectors.monitor_trials import calm
    from millstream_lab.detectors.simulated_traffic import TrafficSettings

    return [
        {"budget": words, **asdict(calm(TrafficSettings(), Monitors(budget), effort.years, progress=step))}
        for words, budget in effort.budgets.items()
    ]


def _calm_tables(found: list[dict[str, Any]]) -> list[Table]:
    columns = "budget", "days", "allowed", "opened", "of which"
    rows = [
        (
            each["budget"],
            f"{each['days']:,.0f}",
            f"{each['allowed']:.0f}",
            str(sum(each["opened"].values())),
            ", ".join(f"{count} {kind}" for kind, count in sorted(each["opened"].items())),
        )
        for each in found
    ]
    return [Table("False alarms", columns, rows)]


def _power(effort: BenchSize, step: Step) -> list[dict[str, Any]]:
    from millstream.core.drift.declared import Monitors
    from millstream_lab.detectors.monitor_trials import power
    from millstream_lab.detectors.simulated_traffic import CHANGES, TrafficSettings

    return [
        {"budget": words, **asdict(power(TrafficSettings(), Monitors(budget), each, effort.runs, progress=step))}
        for words, budget in effort.budgets.items()
        for each in CHANGES
    ]


def _power_tables(found: list[dict[str, Any]]) -> list[Table]:
    columns = "change", "budget", "detected within 4 weeks", "median events", "median days"
    rows = [
        (
            each["change"],
            each["budget"],
            f"{each['found']} of {each['runs']}",
            f"{each['median_events']:,.0f}",
            f"{each['median_days']:.1f}",
        )
        for each in found
    ]
    return [Table("Detection delay", columns, rows)]


def _cost(_effort: BenchSize, step: Step) -> dict[str, Any]:
    from millstream_lab.detectors.cost import measure

    found = measure(time.perf_counter)
    step()
    return {**asdict(found), "events_per_s": found.events_per_s}


def _cost_tables(found: dict[str, Any]) -> list[Table]:
    columns = "features", "models", "events", "slots judged", "events/s"
    whole = [f"{found[name]:,}" for name in ("features", "models", "events", "readings")]
    return [Table("All default monitors in one thread", columns, [(*whole, f"{found['events_per_s']:,.0f}")])]


def _changes(effort: BenchSize) -> int:
    from millstream_lab.detectors.simulated_traffic import CHANGES

    return len(CHANGES) * effort.runs * len(effort.budgets)


_TRAFFIC: Final = (
    "Simulated traffic through the whole path from scored events and examples to alerts: 2,400 events a day, 2 % "
    "positive, bursty, with a rhythm of day and week in volume and in every feature; eight weeks of reference; an "
    "online model whose scores wander about the champion's by a tenth on the logit."
)

PARTS: Final[Mapping[str, Part]] = {
    "indices": Part(
        "River's documented examples",
        "What the installed version of River finds in the examples of its documentation.",
        lambda _effort: 1,
        _indices,
        _indices_tables,
    ),
    "streams": Part(
        "Published drift streams",
        "SINE1 and CIRCLES with 10 % label noise: errors of a Gaussian naive Bayes learner that restarts at each "
        "detection; two levels: the values themselves. Calibrated: to one false alarm in 100,000 events on streams "
        "without drift. Delays in events. A second detection of one change counts as false: a CUSUM of values goes by "
        "the level before, and continues until it is given another.",
        lambda _effort: 3,
        _streams,
        _streams_tables,
    ),
    "meaning": Part(
        "Covariate shift or concept change",
        f"{_TRAFFIC} Incidents that opened within two weeks of the change; each run has a reference of its own.",
        lambda effort: 3 * effort.runs * len(effort.budgets),
        _meaning,
        _meaning_tables,
    ),
    "calm": Part(
        "Years without drift",
        f"{_TRAFFIC} Each year has a reference of its own.",
        lambda effort: effort.years * len(effort.budgets),
        _calm,
        _calm_tables,
    ),
    "power": Part(
        "Changes of known size",
        f"{_TRAFFIC} Changes begin at a random hour; labels are known at once: add the label delay for positives.",
        _changes,
        _power,
        _power_tables,
    ),
    "cost": Part(
        "What it costs",
        "Windows, reconstruction error, expected figure, signals and incidents as hours close, the online model's "
        "score, and concept monitors as if each event had its label; 10,000 events a day.",
        lambda _effort: 1,
        _cost,
        _cost_tables,
    ),
}
