"""The options ``--rate`` and ``--speed``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from millstream.core.pacing import Pace


def pace_of(rate: float | None, speed: float | None) -> Pace:
    """Return the pace that the options ask for.

    Raises
    ------
    BadParameter
        Both are given, or one is not positive.
    """
    from millstream.core.pacing import FLAT_OUT, Pace

    if rate is not None and speed is not None:
        raise typer.BadParameter("--rate and --speed exclude each other")
    for name, factor in (("rate", rate), ("speed", speed)):
        if factor is not None and not factor > 0:
            raise typer.BadParameter(f"--{name} must be above 0")
    if rate is not None:
        return Pace("rate", rate)
    return FLAT_OUT if speed is None else Pace("speed", speed)
