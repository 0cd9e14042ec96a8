"""``millstream drift bench``: how well the monitors detect, with baselines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from millstream.cli import group
from millstream.cli.screen import progress
from millstream.core.drift.declared import parse_budget
from millstream.errors import Misconfigured
from millstream_lab.detectors.bench_parts import PARTS, BenchSize
from millstream_lab.tables import markdown_lines, print_table, write_section


def register(app: typer.Typer) -> None:
    """Add the command to the group ``drift``."""
    group(app, "drift").command()(bench)


def bench(
    part: Annotated[
        list[str] | None, typer.Option(help=f"What to measure: {', '.join(PARTS)}; again for more. Default: all.")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Streams and changes of each kind.")] = 10,
    years: Annotated[int, typer.Option(min=1, help="Drift-free years, each with a reference of its own.")] = 3,
    false_alarms: Annotated[
        list[str] | None, typer.Option(help="The budget, as in monitors.toml; again for more. Default: 1 per week.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option("--json", help="Keep the figures here; other parts in the file stay.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write all figures of the file into this page.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Measure nothing: show the figures of the file.")] = False,
) -> None:
    """Measure delays, misses and false alarms of the monitors, with the method and baselines.

    What was found is on a page beside this command's code, MONITORS.md.
    """
    wanted = part or list(PARTS)
    unknown = sorted(set(wanted) - set(PARTS))
    if unknown:
        raise typer.BadParameter(f"there is no part {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    budgets = tuple(false_alarms or ["1 per week"])
    try:
        effort = BenchSize(runs, years, {each: parse_budget(each) for each in budgets})
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--false-alarms") from error
    if show and (figures is None or not figures.exists()):
        raise Misconfigured("--show shows the figures of a file: give one that is there with --json")
    held: dict[str, Any] = json.loads(figures.read_text(encoding="utf-8")) if figures and figures.exists() else {}
    console = Console()
    for name in wanted:
        if not show:
            held[name] = _measured(name, effort, console)
            if figures is not None:
                figures.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
        elif name not in held:
            continue
        for table in PARTS[name].tables(held[name]):
            print_table(table, console)
        console.print(f"[dim]{PARTS[name].method}[/]\n", highlight=False)
    if markdown is not None:
        write_section(markdown, "millstream drift bench --markdown", as_markdown(held))


def _measured(name: str, effort: BenchSize, console: Console) -> Any:
    with progress(console, TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()) as bar:
        task = bar.add_task(PARTS[name].title, total=PARTS[name].steps(effort))
        return PARTS[name].measure(effort, lambda: bar.advance(task))


def as_markdown(held: dict[str, Any]) -> str:
    """Return figures as Markdown, a section per part."""
    lines: list[str] = []
    for name, each in PARTS.items():
        if name in held:
            lines += [f"### {each.title} (`--part {name}`)", "", each.method, ""]
            lines += [line for table in each.tables(held[name]) for line in markdown_lines(table)]
    return "\n".join(lines)
