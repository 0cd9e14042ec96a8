"""A plot of feature importances, for the model registry."""

from __future__ import annotations

import io
from collections.abc import Mapping

_HEADING = "feature_importances:"


def gains(body: str) -> dict[str, float]:
    """Return the importances a LightGBM text carries, by feature, in its order; features never used are left out."""
    found = {}
    _, _, rest = body.partition(f"\n{_HEADING}\n")
    for line in rest.splitlines():
        name, equals, value = line.partition("=")
        if not equals:
            break
        found[name] = float(value)
    return found


def importance_png(importances: Mapping[str, float], title: str) -> bytes:
    """Return a bar chart as PNG, the greatest on top."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    ordered = sorted(importances.items(), key=lambda item: item[1])
    figure = Figure(figsize=(8, 0.8 + 0.3 * len(ordered)), layout="constrained")
    axes = figure.subplots()
    axes.barh([name for name, _ in ordered], [value for _, value in ordered])
    axes.set_title(title)
    axes.set_xlabel("total gain")
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=100)
    return out.getvalue()
