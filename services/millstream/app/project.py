"""The Python API's entry: a project is a feature repo with its contracts and settings, compiled or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from millstream.app.assembly import Assembly, assemble
from millstream.errors import Misconfigured
from millstream.project_file import find_folder
from millstream.settings import Settings, load_settings

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from millstream.adapters.files.ingest import BadRow

    Table: TypeAlias = pl.DataFrame | pd.DataFrame | Sequence[Mapping[str, Any]] | Path | str


@dataclass(frozen=True)
class Replay:
    """What a replay produced.

    Parameters
    ----------
    scored : polars.DataFrame
        One row per answered event: the event, its features as served, the score and the decision.
    dead_letters : polars.DataFrame
        One row per event that was refused, with the reason.
    unreadable : list of BadRow
        Rows of the input that could not be read as events of the contract.
    predictions : polars.DataFrame
        The same events as the contract of predictions has them: ids and keys are text.
    """

    scored: pl.DataFrame
    dead_letters: pl.DataFrame
    unreadable: list[BadRow] = field(repr=False)
    predictions: pl.DataFrame = field(repr=False)


class Project:
    """A feature repo with its contracts and settings; made by `millstream.open`.

    Attributes
    ----------
    settings : Settings
    assembly : Assembly
        The declaration, contracts and stages that the repo amounts to.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.assembly: Assembly = assemble(settings)

    def __repr__(self) -> str:
        return f"Project({self.name!r}, topic={self.topic!r}, features={len(self.features)})"

    @property
    def name(self) -> str:
        """Name of the Feast project."""
        return self.assembly.topology.project

    @property
    def topic(self) -> str:
        """Topic of the events."""
        return self.assembly.declaration.topic

    @property
    def features(self) -> list[str]:
        """Names of the features the service reads, as columns of `Replay.scored`."""
        return [name for name, _ in self.assembly.declaration.service.features]

    def replay(
        self,
        events: Table,
        labels: Table | None = None,
        *,
        model: str = "none",
        label_column: str | None = None,
        label_delay: str = "7d",
        progress: Callable[[int, float], None] = lambda _rows, _seconds: None,
    ) -> Replay:
        """Run events through the stages in memory; no server is needed.

        The features are those that the stages would have served live, point in time.

        Parameters
        ----------
        events : DataFrame, sequence of mapping, or path
            One row per event, in the order to replay; columns have the names of the contract's fields. Polars or
            pandas, rows, or a Parquet, CSV or JSON lines file.
        labels : DataFrame, sequence of mapping, or path, optional
            Labels by event id, for features made of labels; default: a column of ``events``.
        model : str, optional
            ``champion``, a version number, or ``none`` for the declared rule.
        label_column : str, optional
            Column with the label; ``none`` if features made of labels are to be as if no label became known.
        label_delay : str, optional
            How long after its event a label without a time of its own becomes known, such as ``7d`` or ``12h``.
        progress : callable, optional
            Takes the rows read so far and the seconds since the start.

        Returns
        -------
        Replay

        Raises
        ------
        Misconfigured
            The events or labels cannot be read, or the model is not there.
        """
        import polars as pl

        from millstream.app.replay_file import DEAD_LETTERS_FILE, replay_file
        from millstream.app.replay_labels import late_labels
        from millstream.app.training_data import SCORED_FILE

        unreadable: list[BadRow] = []
        with TemporaryDirectory(prefix="millstream-") as folder:
            source = _file_of(events, Path(folder) / "events")
            beside = None if labels is None else _file_of(labels, Path(folder) / "labels")
            late = late_labels(self.assembly, source, label_column, label_delay, beside)
            out = Path(folder) / "replayed"
            replay_file(self.assembly, source, out, model=model, late=late, fault=unreadable.append, progress=progress)
            scored = pl.read_parquet(out / SCORED_FILE)
            dead_letters = pl.read_parquet(out / DEAD_LETTERS_FILE)
        return Replay(scored, dead_letters, unreadable, self._predictions(scored))

    def _predictions(self, scored: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        from millstream.topology import PREDICTIONS

        contract = self.assembly.contract
        public = scored.with_columns(
            pl.col(contract.event_id).cast(pl.String).alias("event_id"),
            pl.col(contract.key).cast(pl.String).alias("key"),
            pl.col(contract.event_time).alias("event_time_ms"),
        )
        return public.select(each.name for each in self.assembly.contracts[PREDICTIONS].schema.fields)


def open(folder: Path | str | None = None, **settings: Any) -> Project:
    """Open the project of a folder.

    Parameters
    ----------
    folder : path, optional
        Of the project; default: found from the working directory, as the command line does.
    **settings
        Settings by name in lower case, such as ``late_policy="drop"``; they win over the environment.

    Returns
    -------
    Project

    Raises
    ------
    Misconfigured
        The settings, contracts or feature repo are wrong; names the key and what to do.
    """
    start = None if folder is None else Path(folder)
    if start is not None and find_folder(start) is None:
        raise Misconfigured(
            f"{folder} is no project: neither it nor a folder above it holds millstream.toml or "
            "feature_repo/feature_store.yaml; `millstream new DIR` writes one"
        )
    return Project(load_settings(project=start, **settings))


def _file_of(table: Table, path: Path) -> Path:
    """Return a file with the rows: the one that was given, or a new one at ``path`` and its suffix."""
    if isinstance(table, str | Path):
        return Path(table)
    import polars as pl

    if isinstance(table, Sequence):
        rows = cast("Sequence[Mapping[str, Any]]", table)
        file = path.with_suffix(".jsonl")
        file.write_text("".join(f"{json.dumps(dict(row), default=_as_text)}\n" for row in rows), encoding="utf-8")
        return file
    file = path.with_suffix(".parquet")
    (table if isinstance(table, pl.DataFrame) else pl.from_pandas(table)).write_parquet(file)
    return file


def _as_text(value: object) -> str:
    """Return a cell that JSON has no type for as text: times as ISO 8601, decimals and UUIDs as they are written."""
    return value.isoformat() if isinstance(value, date | time) else str(value)
