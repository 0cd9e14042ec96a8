"""``millstream evaluate``: how good the models are, against what was published and on events as they come."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from millstream.settings import load_settings

evaluate = typer.Typer(no_args_is_help=True, help="How good the models are on the reference stream.")

_Fresh = Annotated[bool, typer.Option("--fresh", help="Replay the stream again, though its features are kept.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
_Picture = Annotated[Path | None, typer.Option(help="Draw the result into this PNG.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(evaluate, name="evaluate")


@evaluate.command()
def book(fresh: _Fresh = False, picture: _Picture = None, as_json: _Json = False) -> None:
    """Repeat the Fraud Detection Handbook's experiment on replayed features, beside its published results.

    Train on 25 to 31 July 2018, wait seven days for labels, test on 8 to 14 August without the cards known as
    compromised by then. Trees are grown as was best on earlier weeks. Exit code 1: the parts are not of the published
    sizes, or a metric is below the best published random forest's.
    """
    from millstream_lab.evaluation.published import run_book

    if not run_book(load_settings(), Console(stderr=as_json), fresh, picture, as_json):
        raise typer.Exit(1)


@evaluate.command()
def prequential(
    start: Annotated[str, typer.Option("--from", help="First event to answer (ISO, UTC).")] = "2018-08-01",
    warm_up: Annotated[str, typer.Option(help="The online model learns for so long before.")] = "31d",
    every: Annotated[str, typer.Option(help="Champions are retrained this often.")] = "7d",
    history: Annotated[str, typer.Option(help="Champions are trained on so much.")] = "60d",
    label_delay: Annotated[str, typer.Option(help="How long after an event its label is known.")] = "7d",
    online_share: Annotated[float, typer.Option(min=0, max=1, help="The online model's weight in the blend.")] = 0.5,
    metric: Annotated[str, typer.Option(help="Shown by day, besides the JSON and the picture.")] = "average_precision",
    picture: _Picture = None,
    fresh: _Fresh = False,
    as_json: _Json = False,
) -> None:
    """Answer every event as it would have been live, then hold champion, online model and blend against the labels.

    Nothing is known before its time: champions are trained on labels known by then, the online model learns each one
    when it is. Once with a champion that is trained once, once with one that is retrained every week.
    """
    from millstream.cli.replay import day_ms
    from millstream.cli.train import duration_ms
    from millstream_lab.evaluation.champions import Plan
    from millstream_lab.evaluation.prequential import run_prequential

    plan = Plan(
        from_ms=day_ms(start),
        warm_up_ms=duration_ms(warm_up),
        every_ms=duration_ms(every),
        history_ms=duration_ms(history),
        label_delay_ms=duration_ms(label_delay),
        online_share=online_share,
    )
    run_prequential(load_settings(), Console(stderr=as_json), plan, metric, fresh, picture, as_json)


@evaluate.command()
def online(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Names of built-in pipelines, or files like online_model.py; default: all built in."),
    ] = None,
    start: Annotated[str, typer.Option("--from", help="First event to answer (ISO, UTC).")] = "2018-07-01",
    days: Annotated[int, typer.Option(min=1, help="How many days to answer.")] = 31,
    warm_up: Annotated[str, typer.Option(help="The models learn for so long before.")] = "31d",
    every: Annotated[str, typer.Option(help="The champion is retrained this often.")] = "7d",
    history: Annotated[str, typer.Option(help="Champions are trained on so much.")] = "60d",
    label_delay: Annotated[str, typer.Option(help="How long after an event its label is known.")] = "7d",
    share: Annotated[float, typer.Option(min=0.001, max=1, help="Share of the cards whose events are taken.")] = 0.2,
    as_json: _Json = False,
) -> None:
    """Hold several online models against each other, beside the same champion: how good, how quick, how large.

    What `feature_repo/online_model.py` declares was chosen so. The default is July, so that what is then measured of
    August and September (`prequential`) has had no part in the choice.
    """
    from millstream.cli.replay import day_ms
    from millstream.cli.train import duration_ms
    from millstream_lab.evaluation.champions import Plan
    from millstream_lab.evaluation.online import run_online

    plan = Plan(
        from_ms=day_ms(start),
        warm_up_ms=duration_ms(warm_up),
        every_ms=duration_ms(every),
        history_ms=duration_ms(history),
        label_delay_ms=duration_ms(label_delay),
    )
    run_online(load_settings(), Console(stderr=as_json), plan, days, share, models or [], as_json)
