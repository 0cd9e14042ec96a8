"""The reference stream, replayed through the stages: features as they would have been served, and the truth."""

from __future__ import annotations

import hashlib
import json
import shutil

import polars as pl
from rich.console import Console

from millstream.app.assembly import Assembly
from millstream.app.replay_labels import late_labels
from millstream.app.training_data import SCORED_FILE, read_features, with_labels
from millstream.cli.demo.history import LABEL_DELAY_MS, simulated
from millstream.cli.replay import run_replay
from millstream.core.models.manifest import define
from millstream.errors import Stop

LABEL = "is_fraud"


def reference_history(assembly: Assembly, console: Console, fresh: bool) -> pl.DataFrame:
    """Return a row per event of the reference stream: features of the service, and `LABEL`.

    Labels become known a week after their events, as the book has it. Simulated and replayed once per declaration, and
    kept in the state directory.

    Parameters
    ----------
    fresh : bool
        Replay again.

    Raises
    ------
    Stop
        An event was turned away: the stream and the contract do not fit.
    """
    state = assembly.settings.state_dir
    stream = simulated(state / "demo", console).stream
    words = json.dumps([define(assembly.declaration), assembly.declaration.service.features])
    folder = state / "evaluate" / hashlib.sha256(words.encode()).hexdigest()[:12]
    if fresh or not (folder / SCORED_FILE).is_file():
        part = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        source = state / "demo" / "transactions.parquet"
        late = late_labels(assembly, source, LABEL, f"{LABEL_DELAY_MS // 86_400_000}d")
        counts = run_replay(assembly, source, part, console, late=late)
        if counts.scored != stream.height:
            raise Stop(f"{stream.height - counts.scored:,.0f} events were turned away; see {part}")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
        console.print(f"{stream.height:,} events replayed in {counts.seconds:.0f} s", highlight=False)
    else:
        console.print(f"features replayed before, in {folder}; --fresh replays them again", soft_wrap=True)
    return with_labels(read_features(folder), stream, assembly.contract.event_id, LABEL, None)
