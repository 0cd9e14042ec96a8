"""The benchmark's report for people: on a terminal, and as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from millstream_lab.bench.run import PARTS
from millstream_lab.tables import markdown_lines, print_table, write_section

_MOST_WRONG = 5


def machine_line(machine: dict[str, Any]) -> str:
    """Return in one line what a part was measured on, and when."""
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    settings = "".join(f", {name}={value}" for name, value in machine["settings"].items())
    return (
        f"{machine['at']}, {machine['cores']} cores shared with broker and Valkey, {machine['memory_gb']:.0f} GB, "
        f"{machine['system']} {machine['processor']}, Python {machine['python']}, {libraries}, seed {machine['seed']}, "
        f"load average before {machine['load_before']:.1f}, took {machine['seconds']:.0f} s{settings}"
    )


def print_report(report: dict[str, Any], console: Console) -> None:
    """Print figures, what is wrong, and the method."""
    for name, part in report["parts"].items():
        for made in PARTS[name].tables(part["figures"]):
            print_table(made, console)
        for sentence in part["wrong"][:_MOST_WRONG]:
            console.print(f"[red]{name}: {sentence}[/]", highlight=False)
        if len(part["wrong"]) > _MOST_WRONG:
            console.print(f"[red]{name}: and {len(part['wrong']) - _MOST_WRONG:,} more[/]", highlight=False)
        for sentence in [*part["method"], machine_line(part["machine"])]:
            console.print(f"[dim]{sentence}[/]", highlight=False)
        console.print()


def as_markdown(report: dict[str, Any]) -> str:
    """Return figures and method as Markdown, a section per part."""
    lines: list[str] = []
    for name, part in report["parts"].items():
        lines += [f"### {part['title']} (`--part {name}`)", ""]
        for made in PARTS[name].tables(part["figures"]):
            lines += markdown_lines(made)
        lines += [f"**Wrong:** {sentence}" for sentence in part["wrong"]] + [""] * bool(part["wrong"])
        lines += [*(f"- {sentence}" for sentence in part["method"]), f"- Measured {machine_line(part['machine'])}.", ""]
    return "\n".join(lines)


def write_markdown(report: dict[str, Any], file: Path) -> None:
    """Replace the figures of a page; see `millstream_lab.tables.write_section`."""
    write_section(file, "millstream bench --markdown", as_markdown(report))
