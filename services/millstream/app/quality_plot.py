"""Quality as a picture: figures by day with intervals, what is not final visibly so, and groups side by side."""

from __future__ import annotations

import html
import io
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from millstream.app.quality_figures import ARMS, QualityRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TITLES = {
    "average_precision": "average precision",
    "card_precision": "precision among the most suspicious",
    "recall": "recall at the threshold (bars: whatever missing labels turn out to be)",
    "log_loss": "log-loss (lower is better)",
}
_PAIRS = (("average_precision", "card_precision"), ("recall", "log_loss"))
_FAIR = ("recall", "precision", "selection_rate", "base_rate")
_COLOURS = {"answer": "#222222", "champion": "#0072b2", "online": "#d55e00", "blend": "#009e73"}  # Okabe, Ito
_GROUP_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#222222")
_MOST_GROUPS = 12


def picture(shown: Sequence[QualityRecord], form: Literal["png", "svg"]) -> bytes:
    """Return the picture of one protocol's figures at one maturity.

    Full points and lines are final, hollow ones on grey are not: their labels have not had time to arrive. Bars are
    95 % intervals, which for shares hold whatever the missing labels turn out to be.
    """
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    by_day = [each for each in shown if each.day_start_ms is not None and not each.group_column]
    groups = [each for each in shown if each.group_column and each.day_start_ms is None]
    figure = Figure(figsize=(13, 10 + (2.8 if groups else 0)), layout="constrained")
    rows: list[Any] = [[metric] * 2 + [beside] * 2 for metric, beside in _PAIRS] + [["labelled"] * 4]
    ratios = [3.0, 3.0, 1.6]
    if groups:
        rows.append([f"group {metric}" for metric in _FAIR])
        ratios.append(2.2)
    panels = figure.subplot_mosaic(rows, height_ratios=ratios)
    for metric, title in _TITLES.items():
        _lines(panels[metric], [each for each in by_day if _is(each, metric)], title)
    _labelled(panels["labelled"], [each for each in by_day if each.metric == "base_rate"])
    if groups:
        _groups([panels[f"group {metric}"] for metric in _FAIR], groups)
    first = shown[0]
    when = "the label" if first.protocol == "prequential" else "the event"
    as_of = datetime.fromtimestamp(max(each.as_of_ms for each in shown) / 1000, UTC).isoformat(" ", "minutes")[:16]
    figure.suptitle(
        f"Quality by day of {when}, on labels known within {first.maturity_days} days; labels as of {as_of} UTC",
        fontsize=13,
        fontweight="bold",
    )
    handles, names = panels["average_precision"].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=6, frameon=False)
    out = io.BytesIO()
    figure.savefig(out, format=form, dpi=110)
    return out.getvalue()


def page(shown: Sequence[QualityRecord]) -> str:
    """Return a page with the picture and the figures behind it; it needs nothing but itself."""
    drawing = picture(shown, "svg").decode()
    drawing = drawing[drawing.index("<svg") :]
    names = ("day", "arm", "model", "group", "metric", "value", "lower", "upper", "state", "examples")
    rows = []
    for each in shown:
        group = f"{each.group_column}={each.group}" if each.group_column else ""
        numbers = ["" if number is None else f"{number:.4f}" for number in (each.value, each.lower, each.upper)]
        cells = [each.day or "all mature", each.arm, f"{each.model} {each.model_version}", group, each.metric, *numbers]
        cells += ["final" if each.mature else "open", str(each.examples)]
        rows.append(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>")
    head = "".join(f"<th>{name}</th>" for name in names)
    style = (
        "body{font-family:sans-serif;margin:1em auto;max-width:82em}svg{width:100%;height:auto}"
        "td,th{padding:.15em .7em;text-align:left;font-variant-numeric:tabular-nums}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Quality</title><style>{style}</style>{drawing}'
        f"<details><summary>{len(rows)} figures</summary><table><tr>{head}</tr>{''.join(rows)}</table></details></html>"
    )


def _is(each: QualityRecord, metric: str) -> bool:
    return each.metric == metric or (metric == "card_precision" and each.metric.startswith("card_precision_at_"))


def _date(each: QualityRecord) -> datetime:
    return datetime.fromtimestamp((each.day_start_ms or 0) / 1000, UTC)


def _lines(axes: Axes, figures: Sequence[QualityRecord], title: str) -> None:
    """Draw one line per arm; of a day on which two versions answered, the one with more examples."""
    if figures and figures[0].metric.startswith("card_precision_at_"):
        title = f"{title} {figures[0].metric.rpartition('_')[2]} a day"
    axes.set_title(title, loc="left", fontsize=10)
    present = [arm for arm in ARMS if any(each.arm == arm for each in figures)]
    for place, arm in enumerate(present):
        days: dict[datetime, QualityRecord] = {}
        for each in sorted((each for each in figures if each.arm == arm), key=lambda each: each.examples):
            days[_date(each)] = each
        line = [days[day] for day in sorted(days)]
        shift = timedelta(hours=2.5 * (place - (len(present) - 1) / 2))  # beside each other, not on top
        _line(axes, line, shift, _COLOURS[arm], arm)
        if arm == "champion":
            _versions(axes, line)
    _open_days(axes, figures)
    _dates(axes)
    if figures and not _is(figures[0], "log_loss"):
        top = max(each.upper or each.value or 0 for each in figures)
        axes.set_ylim(0, min(1.03, 1.08 * top))
    else:
        least = min((_or(each.lower, each) for each in figures), default=0.0)
        axes.set_ylim(bottom=max(0.0, 0.9 * least))


def _line(axes: Axes, line: Sequence[QualityRecord], shift: timedelta, colour: str, name: str) -> None:
    # What is final ends where what is open begins: the last final point is drawn with both.
    final = [each for each in line if each.mature]
    still = [each for each in line if not each.mature]
    dashed = [*final[-1:], *still]
    wide = name == "answer"  # it lies on whichever model answered
    lower = [max(0.0, _value(each) - _or(each.lower, each)) for each in line]
    upper = [max(0.0, _or(each.upper, each) - _value(each)) for each in line]
    for style, part in (("o-", final), (":", dashed), ("o", still), ("none", line)):
        dates: Any = [_date(each) + shift for each in part]
        values = [_value(each) for each in part]
        if style == "none":
            axes.errorbar(dates, values, [lower, upper], fmt=style, ecolor=colour, alpha=0.3, elinewidth=1.2)
        else:
            axes.plot(
                dates, values, style, color=colour, ms=4.5 if part is still else 3.5, lw=3.2 if wide else 1.4,
                mfc="white" if part is still else colour, alpha=0.45 if wide else 1.0,
                label=name if part is final else None,
            )  # fmt: skip


def _value(each: QualityRecord) -> float:
    return 0.0 if each.value is None else each.value


def _or(end: float | None, each: QualityRecord) -> float:
    """Return an end of the interval, the value itself where there is none."""
    return _value(each) if end is None else end


def _versions(axes: Axes, line: Sequence[QualityRecord]) -> None:
    for before, after in itertools.pairwise(line):
        if before.model_version != after.model_version:
            day: Any = _date(after) - timedelta(hours=12)
            axes.axvline(day, color="#0072b2", lw=0.8, ls="--")
            axes.annotate(
                f"champion {after.model_version}", (day, 0.02), xycoords=("data", "axes fraction"), fontsize=7,
                color="#0072b2", rotation=90, va="bottom", ha="right",
            )  # fmt: skip


def _open_days(axes: Axes, figures: Sequence[QualityRecord]) -> None:
    days = sorted({_date(each) for each in figures if not each.mature})
    if days:
        begin: Any = days[0] - timedelta(hours=12)
        end: Any = days[-1] + timedelta(hours=12)
        axes.axvspan(begin, end, color="#eeeeee", zorder=0, label="not final: labels are still to come")


def _dates(axes: Axes) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=9)  # type: ignore[no-untyped-call] # matplotlib's dates have no types
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call] # as above
    axes.grid(axis="y", color="#dddddd", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _labelled(axes: Axes, figures: Sequence[QualityRecord]) -> None:
    axes.set_title("examples a day, and the labelled share of predictions", loc="left", fontsize=10)
    arms = [arm for arm in ARMS if any(each.arm == arm for each in figures)]
    days: dict[datetime, list[QualityRecord]] = {}
    for each in figures:
        if each.arm == arms[0]:
            days.setdefault(_date(each), []).append(each)
    dates: Any = sorted(days)
    examples = [sum(each.examples for each in days[day]) for day in dates]
    final = [all(each.mature for each in days[day]) for day in dates]
    axes.bar(dates, examples, color=["#8fb8d8" if each else "#eeeeee" for each in final], edgecolor="#7799aa", lw=0.6)
    axes.set_ylabel("examples", fontsize=8)
    _dates(axes)
    share = axes.twinx()
    weighted = [
        sum((each.coverage or 0) * each.examples for each in days[day]) / max(1, count)
        for day, count in zip(dates, examples, strict=True)
    ]
    share.plot(dates, weighted, "-", color="#d55e00", lw=1.4)
    share.set_ylim(0, 1.03)
    share.set_ylabel("labelled share", fontsize=8, color="#d55e00")
    share.spines[["top"]].set_visible(False)


def _groups(panels: Sequence[Axes], figures: Sequence[QualityRecord]) -> None:
    """Draw each group's shares side by side, for the first arm that has them, with the gap between best and worst."""
    arm = next(arm for arm in ARMS if any(each.arm == arm for each in figures))
    # Of several versions the newest is of interest.
    version = max(each.model_version for each in figures if each.arm == arm)
    mine = [each for each in figures if each.arm == arm and each.model_version == version]
    names = sorted({each.group for each in mine if each.group != "*"})
    drawn = names[:_MOST_GROUPS]
    for axes, metric in zip(panels, _FAIR, strict=True):
        bars = {each.group: each for each in mine if each.metric == metric and each.group in drawn}
        gap = next((each.value for each in mine if each.group == "*" and each.metric == f"{metric}_gap"), None)
        for place, name in enumerate(drawn):
            if name in bars:
                one = bars[name]
                reach = [[_value(one) - _or(one.lower, one)], [_or(one.upper, one) - _value(one)]]
                colour = _GROUP_COLOURS[place % len(_GROUP_COLOURS)]
                axes.errorbar([place], [_value(one)], reach, fmt="o", color=colour, capsize=3, ms=7)
        ticks = [f"{name}\n{bars[name].examples:,}" if name in bars else name for name in drawn]
        axes.set_xticks(range(len(drawn)), ticks, fontsize=8)
        axes.set_xlim(-0.6, len(drawn) - 0.4)
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color="#dddddd", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        told = "" if gap is None else f": gap {gap:.3f}"
        axes.set_title(f"{metric.replace('_', ' ')}{told}", loc="left", fontsize=10)
    more = f", {len(names) - len(drawn)} more not drawn" if len(names) > len(drawn) else ""
    model = f"{mine[0].model} {version}" if version else mine[0].model
    panels[0].set_ylabel(f"{arm} ({model})\nall mature days", fontsize=8)
    panels[0].set_xlabel(f"{mine[0].group_column}{more}, examples", fontsize=8)
