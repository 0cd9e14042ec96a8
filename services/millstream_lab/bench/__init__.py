"""``millstream bench``: throughput, latency and memory, beside stock Faust, with methods and checked answers."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

_PARTS = ("one-stage", "path", "latency", "recovery", "view", "scaling", "keys", "learner", "join", "ledger")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(bench)


def bench(
    part: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(_PARTS)}; repeatable. Default: all of them.")
    ] = None,
    long: Annotated[
        bool, typer.Option("--long", help="Larger backlogs, longer pacing, 2 M keys, 10 M pending.")
    ] = False,
    events: Annotated[int, typer.Option(min=10_000, help="one-stage: events of Millstream's backlog.")] = 400_000,
    faust_events: Annotated[int, typer.Option(min=1_000, help="one-stage: how many stock Faust gets.")] = 40_000,
    rate: Annotated[list[int] | None, typer.Option(help="Events/s of the paced parts; default: 1000, 5000.")] = None,
    paced_s: Annotated[float, typer.Option(min=2.0, help="Seconds at each rate.")] = 10.0,
    limit_s: Annotated[float, typer.Option(min=5.0, help="Watch a backlog no longer than this.")] = 60.0,
    only: Annotated[str | None, typer.Option(help="one-stage: millstream or faust; default: both.")] = None,
    guarantee: Annotated[str, typer.Option(help="Millstream's: exactly_once or at_least_once.")] = "exactly_once",
    seed: Annotated[int, typer.Option(help="Of the events and the model.")] = 7,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the report here; parts that it has and are not run now stay.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the figures into this page: all of --json's, or this run's.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Measure nothing: show and write what --json has.")] = False,
    at_least: Annotated[float, typer.Option(help="one-stage: exit 1 below this many times Faust's events/s.")] = 0.0,
    at_least_cpu: Annotated[
        float, typer.Option(help="one-stage: exit 1 unless Faust takes this many times our CPU time per event.")
    ] = 0.0,
) -> None:
    """Measure throughput, latency, recovery, memory, the online view, scaling and labels, on servers of its own.

    All parts take about eight minutes, --part one-stage (the regression guard, with --at-least-cpu) about two.

    Exit code 1: an answer is wrong, missing or doubled under exactly_once, or a ratio is under --at-least[-cpu].
    """
    from millstream_lab.bench.report import print_report, write_markdown

    names = _checked(part, only, at_least or at_least_cpu)
    kept = json.loads(json_file.read_text()) if json_file is not None and json_file.exists() else {"parts": {}}
    if show:
        report = whole = kept
    else:
        report = {"parts": {}}

        def keep(name: str, section: dict[str, Any]) -> None:
            report["parts"][name] = section
            if json_file is not None:
                json_file.write_text(json.dumps(_merged(kept, report), indent=1) + "\n")

        _measure(
            names, long, guarantee, only, keep,
            events=events, faust_events=faust_events, rates=tuple(rate) if rate else (1000, 5000), paced_s=paced_s,
            limit_s=limit_s, seed=seed,
        )  # fmt: skip
        whole = _merged(kept, report)
    print_report(report, Console())
    if markdown is not None:
        write_markdown(whole, markdown)
    below = _below(report, at_least, at_least_cpu)
    for sentence in below:
        Console(stderr=True).print(f"[red]{sentence}[/]")
    if below or any(section["wrong"] for section in report["parts"].values()):
        raise typer.Exit(1)


def _checked(part: list[str] | None, only: str | None, guarded: float) -> list[str]:
    unknown = [name for name in part or () if name not in _PARTS]
    if unknown:
        raise typer.BadParameter(f"--part {unknown[0]}: allowed are {', '.join(_PARTS)}")
    if only not in {None, "millstream", "faust"}:
        raise typer.BadParameter(f"--only {only}: allowed are millstream and faust")
    names = [name for name in _PARTS if not part or name in part]
    if guarded and (only is not None or "one-stage" not in names):
        raise typer.BadParameter("--at-least and --at-least-cpu need both sides of --part one-stage")
    return names


def _merged(kept: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    sections = {**kept["parts"], **report["parts"]}
    return {"parts": {name: sections[name] for name in _PARTS if name in sections}}


def _measure(
    names: list[str],
    long: bool,
    guarantee: str,
    only: str | None,
    keep: Callable[[str, dict[str, Any]], None],
    **sizes: Any,
) -> None:
    from millstream.cli.replay import progress_bar
    from millstream.settings import load_settings
    from millstream_lab.bench.plan import BenchPlan, long_form
    from millstream_lab.bench.run import run_bench

    sides = frozenset({"millstream", "faust"} if only is None else {only})
    # The benchmark has endpoints of its own, but the reference repo is wherever the operator has it.
    reference = load_settings(guarantee=guarantee).feature_repo
    plan = BenchPlan(guarantee=guarantee, sides=sides, reference_repo=reference, **sizes)
    console = Console(stderr=True)
    # Ended from outside, it must not leave servers and workers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with (
        tempfile.TemporaryDirectory(prefix="millstream-bench-", ignore_cleanup_errors=True) as directory,
        progress_bar(console) as bar,
    ):

        def track(step: str, total: int) -> Callable[[int], None]:
            task = bar.add_task(step, total=total, note="")
            return lambda done: bar.update(task, completed=done)

        def say(step: str) -> None:
            bar.console.print(step, highlight=False)

        run_bench(names, long_form(plan) if long else plan, Path(directory), say, track, keep)


def _below(report: dict[str, Any], at_least: float, at_least_cpu: float) -> list[str]:
    """Return a sentence for each ratio to stock Faust that is under its limit, or could not be measured."""
    found = report["parts"].get("one-stage", {}).get("figures", {}).get("ratio") or {}
    limits = {"events_per_s": ("events per second", at_least), "cpu_per_event": ("CPU time per event", at_least_cpu)}
    return [
        f"{words}: {found.get(name) or 0.0:.1f} times better than stock Faust, should be {limit:g}"
        for name, (words, limit) in limits.items()
        if limit and (found.get(name) or 0.0) < limit
    ]
