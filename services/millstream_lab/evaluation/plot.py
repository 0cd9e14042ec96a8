"""Pictures of how good models were: beside published figures, and day by day."""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any


def bars_png(rows: Mapping[str, Mapping[str, float]], titles: Mapping[str, str], heading: str) -> bytes:
    """Return bars by metric, one colour per model, as PNG.

    Parameters
    ----------
    rows : mapping
        By model, its metrics.
    titles : mapping of str to str
        The metrics to draw, and what people call them.
    """
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(rows)
    for place, (name, metrics) in enumerate(rows.items()):
        at = [number + (place - (len(rows) - 1) / 2) * width for number in range(len(titles))]
        bars = axes.bar(at, [metrics[metric] for metric in titles], width, label=name)
        axes.bar_label(bars, fmt="%.3f", fontsize=8)
    axes.set_xticks(range(len(titles)), list(titles.values()))
    axes.set_ylim(0, 1.05)
    axes.set_title(heading)
    axes.legend(loc="upper right")
    return _png(figure)


def daily_png(
    daily: Mapping[str, Mapping[int, Mapping[str, float]]], titles: Mapping[str, str], heading: str, days: int = 7
) -> bytes:
    """Return a panel per metric with a line per contender as PNG: each day as a dot, the mean of the last days as line.

    Parameters
    ----------
    daily : mapping
        By contender, by days since 1970-01-01 UTC, the metrics of the day.
    days : int
        Over how many days a line is smoothed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 2.8 * len(titles)), layout="constrained")
    panels = figure.subplots(len(titles), sharex=True, squeeze=False)[:, 0]
    for panel, (metric, title) in zip(panels, titles.items(), strict=True):
        for place, (name, by_day) in enumerate(daily.items()):
            known = [(day, each[metric]) for day, each in by_day.items() if metric in each]
            at = [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day) for day, _ in known]
            values = [value for _, value in known]
            smooth = [
                sum(values[max(0, i - days + 1) : i + 1]) / (i + 1 - max(0, i - days + 1)) for i in range(len(values))
            ]
            panel.plot(at, values, ".", color=f"C{place}", alpha=0.25, markersize=4)
            panel.plot(at, smooth, color=f"C{place}", label=name)
        panel.set_title(f"{title}, mean of {days} days")
        panel.grid(alpha=0.3)
    panels[0].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.suptitle(heading)
    return _png(figure)


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()
