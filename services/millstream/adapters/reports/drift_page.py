"""A drift report as one self-contained HTML file: figures, and a plot of every column in both periods."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from millstream.core.drift.compare import Comparison

_THEN, _NOW, _MOVED = "#9aa5b1", "#2563eb", "#dc2626"
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8889; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem } .soft { color: var(--soft) }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; margin: 1rem 0 }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child { text-align: left } tr.moved td { color: #dc2626; font-weight: 600 }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem }
figure { margin: 0; padding: .6rem; border: 1px solid var(--line); border-radius: .5rem; background: #fff }
figure.moved { border-color: #dc2626 } img { width: 100% } figcaption { color: #333; font-size: .85rem }
"""


@dataclass(frozen=True, slots=True)
class Page:
    """The content of a report besides the comparisons.

    Parameters
    ----------
    title : str
    then, now : str
        Which events, in words.
    metric : tuple of (name, then, now) or None
        The model's expected metric.
    false_discovery_share : float, in (0, 1)
        Columns whose adjusted p-value is at most this, and whose distance matters, are marked.
    """

    title: str
    then: str
    now: str
    metric: tuple[str, float, float] | None
    false_discovery_share: float = 0.05


def render(page: Page, found: Sequence[Comparison], edges: Sequence[Sequence[float]]) -> str:
    """Return the page; columns that moved most come first.

    Parameters
    ----------
    found : sequence of Comparison
    edges : sequence of sequences of float
        Upper edges of each column's bins, without that of the nulls.
    """
    order = sorted(range(len(found)), key=lambda i: -found[i].psi)
    rows, figures = [], []
    for i in order:
        each = found[i]
        moved = each.psi >= 0.01 and each.adjusted_p_value <= page.false_discovery_share
        mark = ' class="moved"' if moved else ""
        cells = (each.psi, each.ks, each.jensen_shannon, each.chi_square, each.adjusted_p_value)
        texts = "".join(f"<td>{value:.3g}</td>" for value in cells)
        name = html.escape(each.column)
        rows.append(f"<tr{mark}><td>{name}</td><td>{each.events:,}</td>{texts}</tr>")
        picture = base64.b64encode(_picture(each, edges[i], moved)).decode()
        caption = f"<figcaption>{name}: PSI {each.psi:.3g}</figcaption>"
        figures.append(
            f'<figure{mark}><img alt="{name}, then and now" src="data:image/png;base64,{picture}">{caption}</figure>'
        )
    metric = ""
    if page.metric is not None:
        name, then, now = page.metric
        metric = f"<p>Expected {html.escape(name)}: <b>{now:.3f}</b>, in the reference {then:.3f}.</p>"
    head = "<th>column</th><th>events</th><th>PSI</th><th>KS</th><th>JS</th><th>chi² per event</th><th>adjusted p</th>"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(page.title)}</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(page.title)}</h1>"
        f'<p class="soft">Then: {html.escape(page.then)}.<br>Now: {html.escape(page.now)}.<br>'
        "Expected shares are those of the same hours of the week. Red: moved by a PSI of 0.01 or more, and more than "
        f"chance allows; of the columns so marked, a share of {page.false_discovery_share:g} is wrong on average.</p>"
        f"{metric}<table><tr>{head}</tr>{''.join(rows)}</table>"
        f'<div class="grid">{"".join(figures)}</div></html>'
    )


def _picture(each: Comparison, edges: Sequence[float], moved: bool) -> bytes:
    """Return a PNG: shares of bins, then as a grey area, now as a line."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    observed = each.observed / max(each.observed.sum(), 1)
    expected = each.expected / max(each.expected.sum(), 1e-12)
    places = np.arange(len(observed))
    figure = Figure(figsize=(4.2, 2.0), layout="constrained")
    axes = figure.subplots()
    axes.bar(places, expected, width=0.9, color=_THEN, label="then")
    axes.step(places, observed, where="mid", color=_MOVED if moved else _NOW, linewidth=1.8, label="now")
    labels = ["null", *(f"≤ {edge:.4g}" for edge in edges), "more"]
    shown = places[:: max(1, len(places) // 5)]
    axes.set_xticks(shown, [labels[i] for i in shown.tolist()], fontsize=7)
    axes.tick_params(axis="y", labelsize=7)
    axes.yaxis.set_major_formatter(lambda value, _position: f"{value:.0%}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130)
    return out.getvalue()
