"""The workers of a project: which stages each runs, and their start as child processes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack

from millstream.app.assembly import Assembly
from millstream.app.worker_processes import WorkerProcess, run_command, start_worker, wait_until_ready
from millstream.project_file import FOLDER_VARIABLE
from millstream.settings import Settings, environment_of
from millstream.topology import MEASURE, MONITOR

_LABELS_CHECKPOINT_MS = "2000"
"""Checkpoint interval of the label stages where the settings name none, in milliseconds: a second of the demo is hours
of its events."""


def _shares(assembly: Assembly) -> dict[str, list[str]]:
    """Return the stages of each worker: one per scoring stage, one each for labels, alerts and agents."""
    from millstream.app.stage_registry import usual_stages

    shares = {plan.name: [plan.name] for plan in assembly.topology.stages}
    rest = [name for name in usual_stages(assembly) if name not in shares]
    alerts = [name for name in rest if name in {MEASURE, MONITOR}]
    agents = [plan.name for plan in assembly.topology.agents]
    labels = [name for name in rest if name not in {*alerts, *agents}]
    more = {"labels": labels, "alerts": alerts, "agents": agents}
    return shares | {name: stages for name, stages in more.items() if stages}


def start_workers(
    settings: Settings, assembly: Assembly, stack: ExitStack, prefix: str = "demo", stages: Sequence[str] = ()
) -> list[WorkerProcess]:
    """Start the workers, stopped with ``stack``, and wait until each is ready.

    Parameters
    ----------
    prefix : str
        Of the workers' names.
    stages : sequence of str
        The stages to run, all in one worker; default: all, in several workers.

    Raises
    ------
    Stop
        One ended or did not become ready; the error holds the end of its log.
    """
    state_dir = settings.state_dir.resolve()
    directory = state_dir / "workers"
    directory.mkdir(parents=True, exist_ok=True)
    workers = []
    shares = {"stages": list(stages)} if stages else _shares(assembly)
    for title, share in shares.items():
        name = f"{prefix}-{title}"
        # The worker has these settings whatever its environment, its working directory and the project's file say.
        environment = {**os.environ, **environment_of(settings), FOLDER_VARIABLE: ""}
        if title not in share:
            environment.setdefault("MILLSTREAM_CHECKPOINT_INTERVAL_MS", _LABELS_CHECKPOINT_MS)
        command = run_command(*share, "--worker-id", name)
        worker = start_worker(name, command, environment, directory / f"{name}.log")
        stack.callback(worker.stop)
        workers.append(worker)
    wait_until_ready(state_dir, workers)
    return workers
