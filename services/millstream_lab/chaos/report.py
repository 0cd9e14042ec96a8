"""What a chaos run prints."""

from __future__ import annotations

import math
import statistics
from typing import Any

from rich.console import Console
from rich.table import Table

from millstream_lab.chaos.fault_injector import InjectedFault
from millstream_lab.chaos.plan import ChaosResult

_SHOWN = 5


def print_result(result: ChaosResult, console: Console) -> None:
    """Print what was done and what held."""
    table = Table(title="Faults", title_justify="left")
    for heading in ("fault", "times", "did harm", "workers ended", "healed in s, median", "most"):
        table.add_column(heading, justify="left" if heading == "fault" else "right")
    for name in sorted({deed.fault for deed in result.deeds}):
        deeds = [deed for deed in result.deeds if deed.fault == name]
        healed = [deed.healed_s for deed in deeds if not math.isnan(deed.healed_s)] or [math.nan]
        table.add_row(
            name,
            str(len(deeds)),
            str(sum(deed.harmed for deed in deeds)),
            str(sum(deed.exits for deed in deeds)),
            f"{statistics.median(healed):.1f}",
            f"{max(healed):.1f}",
        )
    console.print(table)
    checks = Table(title="Invariants", title_justify="left")
    checks.add_column("invariant")
    checks.add_column("violations", justify="right")
    for invariant, wrong in result.findings.items():
        checks.add_row(invariant, f"[red]{len(wrong)}[/]" if wrong else "0")
    console.print(checks)
    for invariant, wrong in result.findings.items():
        for sentence in wrong[:_SHOWN]:
            console.print(f"[red]{invariant}: {sentence}[/]", highlight=False)
    published = ", ".join(f"{count:,} {kind}" for kind, count in sorted(result.published.items()))
    outcomes = ", ".join(f"{count:,} {kind}" for kind, count in result.outcomes.items())
    console.print(f"published: {published}; outcomes: {outcomes}", highlight=False)
    exits = ", ".join(f"{count} x {what}" for what, count in sorted(result.exits.items()))
    console.print(f"worker processes that ended: {exits}; {result.seconds / 60:.1f} minutes in all", highlight=False)


def deed_line(deed: InjectedFault, number: int, count: int | None) -> str:
    """Return a line about a fault just done."""
    healed = "" if math.isnan(deed.healed_s) else f", well after {deed.healed_s:.1f} s"
    return (
        f"{number}{f'/{count}' if count else ''} [bold]{deed.fault}[/] ({deed.note}): {deed.lasted_s:.1f} s{healed}, "
        f"{deed.exits} ended{'' if deed.harmed else ', [yellow]no harm done[/]'}"
    )


def as_json(result: ChaosResult, seed: int) -> dict[str, Any]:
    """Return the verdict as JSON values."""
    return {
        "seed": seed,
        "sound": result.sound,
        "seconds": result.seconds,
        "published": result.published,
        "outcomes": result.outcomes,
        "exits": result.exits,
        "findings": {
            invariant: {"count": len(wrong), "first": wrong[:20]} for invariant, wrong in result.findings.items()
        },
        "faults": [
            {
                "fault": deed.fault,
                "note": deed.note,
                "at_s": None if math.isnan(deed.at_s) else round(deed.at_s, 1),
                "lasted_s": round(deed.lasted_s, 1),
                "healed_s": None if math.isnan(deed.healed_s) else round(deed.healed_s, 1),
                "exits": deed.exits,
                "harmed": deed.harmed,
            }
            for deed in result.deeds
        ],
    }
