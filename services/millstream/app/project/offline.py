"""What a project does without a server: replay events, train on what came of them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Unpack

import millstream
from millstream.app.assembly import Assembly, assemble
from millstream.settings import Settings

if TYPE_CHECKING:
    from datetime import datetime

    import polars as pl

    from millstream.adapters.files.ingest import BadRow
    from millstream.app.file_format import FileFormat
    from millstream.app.tables import Table
    from millstream.app.training import Model

    Moment: TypeAlias = datetime | str


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
    labels : DataFrame, sequence of mapping, or path
        The table that `Project.train` reads labels from, where it is given no other.
    """

    scored: pl.DataFrame
    dead_letters: pl.DataFrame
    unreadable: list[BadRow] = field(repr=False)
    predictions: pl.DataFrame = field(repr=False)
    labels: Table | None = field(default=None, repr=False)


class OfflineProject:
    """The part of `millstream.Project` that needs no server.

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
        model: str | int | Model = "none",
        columns: Mapping[str, str] | None = None,
        label_column: str | None = None,
        label_delay: str = "7d",
        progress: Callable[[int, float], None] = lambda _rows, _seconds: None,
        **file_format: Unpack[FileFormat],
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
        model : str, int or Model, optional
            ``champion``, a version, or ``none`` for the declared rule.
        columns : mapping of str to str, optional
            From columns of ``events`` to fields of the contract, where names differ.
        label_column : str, optional
            Column with the label; ``none`` if features made of labels are to be as if no label became known.
        label_delay : str, optional
            How long after its event a label without a time of its own becomes known, such as ``7d`` or ``12h``.
        progress : callable, optional
            Takes the rows read so far and the seconds since the start.
        **file_format
            What files do not say of themselves; see `millstream.app.file_format.FileFormat`.

        Returns
        -------
        Replay

        Raises
        ------
        Misconfigured
            The events or labels cannot be read, or the model is not there.

        Examples
        --------
        In a project of the template ``blank``, opened as ``project``:

        >>> row = {"id": "e1", "device_id": "d1", "event_time_ms": 1_767_225_600_000, "value": 10.0}
        >>> replayed = project.replay([row, row | {"id": "e2", "value": 90.0}])
        >>> replayed.scored["device_activity__mean_value_1h"].to_list()
        [10.0, 50.0]
        >>> replayed.predictions["decision"].to_list()
        ['accept', 'accept']
        """
        from millstream.app.replay_frames import replay_frames
        from millstream.app.tables import bad_row_in_python

        unreadable: list[BadRow] = []
        scored, dead_letters = replay_frames(
            self.assembly,
            events,
            labels,
            model=version_text(model),
            mapping=dict(columns or {}),
            label_column=label_column,
            label_delay=label_delay,
            file_format=file_format,
            fault=lambda row: unreadable.append(bad_row_in_python(row)),
            progress=progress,
        )
        predictions = self._predictions(scored)
        return Replay(scored, dead_letters, unreadable, predictions, events if labels is None else labels)

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

    def train(
        self,
        history: Replay | Table,
        labels: Table | None = None,
        *,
        label_column: str | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
        as_of: Moment | None = None,
        label_delay: str = "7d",
        warm_up: str | None = None,
        gap: str | None = None,
        validation: float = 0.1,
        holdout: float = 0.1,
        threshold: float | None = None,
        rounds: int = 200,
        leaves: int = 31,
        seed: int = 0,
        **file_format: Unpack[FileFormat],
    ) -> Model:
        """Train a model on replayed events, measure it, and register it under the service's name.

        Parameters
        ----------
        history : Replay, DataFrame, sequence of mapping, or path
            What `replay` returned, or events, which are replayed first; or the directory that ``millstream replay``
            wrote.
        labels : DataFrame, sequence of mapping, or path, optional
            Labels by event id; default: those that the replay was given, or a column of its events.
        label_column : str, optional
            Default: the service's tag ``label``.
        start, end : datetime or str, optional
            Event times to train on, the end exclusive; ISO, UTC unless they say otherwise.
        as_of : datetime or str, optional
            Use no label known later; default: the end.
        label_delay : str
            How long after an event its label is known, such as ``7d``.
        warm_up : str, optional
            Leave out so long at the beginning; default: the longest window.
        gap : str, optional
            Between validation and holdout; default: the label delay.
        validation, holdout : float
            Shares of time for early stopping and for the metrics, 0.01 to 0.5.
        threshold : float, optional
            From which score on the decision is positive; default: the best F1 on validation.
        rounds, leaves : int
            Most trees, and leaves per tree.
        seed : int
            Same seed, same trees.
        **file_format
            What files do not say of themselves; see `millstream.app.file_format.FileFormat`.

        Returns
        -------
        Model

        Raises
        ------
        Misconfigured
            The data cannot be learnt from, or an argument is out of range.
        Retry
            The registry cannot be reached.
        """
        from millstream.app.file_format import declared
        from millstream.app.tables import files_of, in_python
        from millstream.app.training import TrainOptions, train
        from millstream.app.training_data import read_features

        replayed: Replay | None = None
        if isinstance(history, Replay):
            replayed = history
        elif not (isinstance(history, str | Path) and Path(history).is_dir()):
            replayed = self.replay(history, labels, label_column=label_column, label_delay=label_delay, **file_format)
        given = labels if labels is not None or replayed is None else replayed.labels
        with files_of(labels=given) as (file,):
            features = replayed.scored if replayed is not None else read_features(Path(str(history)))
            options = TrainOptions(
                label_column, _ms(start), _ms(end), _ms(as_of), label_delay, warm_up, gap,
                validation, holdout, threshold, rounds, leaves, seed,
            )  # fmt: skip
            return train(
                self.assembly, features, file, options, declared(file_format), lambda text: warn(in_python(text))
            )


def version_text(model: str | int | Model) -> str:
    """Return a version as commands name it."""
    return str(model) if isinstance(model, str | int) else str(model.version)


def _ms(moment: Moment | None) -> int | None:
    from millstream.app.durations import moment_ms

    if moment is None:
        return None
    return moment_ms(moment if isinstance(moment, str) else moment.isoformat())


def warn(text: str) -> None:
    """Issue a warning where the method of the project was called."""
    package = str(Path(millstream.__file__).parent)
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_code.co_filename.startswith(package):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)
