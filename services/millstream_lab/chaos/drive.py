"""A chaos run as the commands show it: a directory of its own, a line per fault, the tables in the end."""

from __future__ import annotations

import itertools
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from millstream_lab.bench.sides import own_environment
from millstream_lab.chaos.fault_injector import InjectedFault
from millstream_lab.chaos.plan import ChaosPlan, ChaosResult
from millstream_lab.chaos.report import deed_line, print_result
from millstream_lab.chaos.run import ChaosRun


class Interrupt:
    """Turns the first Ctrl-C into an end of faults, so that an hour's work is still checked; the second one ends all.

    Between faults only: one that is cut short would leave behind what it broke.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._asked = False
        main = threading.current_thread() is threading.main_thread()
        self._before = signal.signal(signal.SIGINT, self._ask) if main else None

    def _ask(self, _number: int, _frame: object) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        self._console.print("no more faults after this one, then the checks; Ctrl-C again leaves at once")

    def until(self, names: Iterable[str]) -> Iterable[str]:
        """Yield names until interrupted."""
        return itertools.takewhile(lambda _name: not self._asked, names)

    def close(self) -> None:
        """Let Ctrl-C do what it did before."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


def drive(
    plan: ChaosPlan,
    keep: Path | None,
    console: Console,
    count: int | None,
    watch: Callable[[ChaosRun], None] = lambda _run: None,
    after: Callable[[ChaosRun], None] = lambda _run: None,
) -> ChaosResult:
    """Run, print and clean up.

    Parameters
    ----------
    keep : Path or None
        Directory to work in and leave; None takes a temporary one, left only if something is wrong.
    count : int or None
        How many faults there will be, where that is known.
    watch, after : callable
        See `millstream_lab.chaos.run.ChaosRun`.

    Raises
    ------
    MillstreamError
        The run could not be finished; logs and data are left.
    """
    console.print(f"seed {plan.seed}", highlight=False)
    directory = Path(tempfile.mkdtemp(prefix="millstream-chaos-")) if keep is None else keep.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    shown: list[InjectedFault] = []

    def done(deed: InjectedFault) -> None:
        shown.append(deed)
        console.print(deed_line(deed, len(shown), count), highlight=False, soft_wrap=True)

    interrupted = Interrupt(console)
    try:
        with own_environment():
            plan = replace(plan, names=interrupted.until(plan.names))
            result = ChaosRun(plan, directory, partial(console.print, highlight=False), watch, after).execute(done)
    except BaseException:
        console.print(f"logs and data are in {directory}", highlight=False)
        raise
    finally:
        interrupted.close()
    print_result(result, console)
    if not result.sound:
        console.print(f"logs and data are in {directory}", highlight=False)
    elif keep is None:
        shutil.rmtree(directory, ignore_errors=True)
    return result
