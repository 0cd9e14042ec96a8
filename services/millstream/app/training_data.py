"""Replayed features and their labels as one table to train on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from millstream.adapters.files.label_file import LabelFile, label_columns, of_chunks, of_frame, read_labels
from millstream.adapters.files.tabular import Chunk, Declared
from millstream.core.avro.convert import convert
from millstream.core.avro.explain_cell import explain
from millstream.core.avro.reading import Reading
from millstream.core.avro.schema import Field
from millstream.core.label_rows import EVENT_ID, KIND, KNOWN_AT, LABEL, SOURCE
from millstream.core.ledger.label_sets import KINDS, RETRACTION
from millstream.errors import Misconfigured

__all__ = ["KNOWN_AT", "SCORED_FILE", "read_features", "with_labels"]

SCORED_FILE = "scored.parquet"
DEFAULT_LABEL = "label"
"""Column of labels where neither an option nor the service's tag ``label`` names one."""
_TIME, _DAY_MS = "__event_time_ms", 86_400_000
_RETRACTION = pl.col(KIND) == KINDS[RETRACTION]


def read_features(source: Path) -> pl.DataFrame:
    """Return what ``millstream replay`` wrote: a directory of Parquet, or one Parquet file.

    Raises
    ------
    Misconfigured
        There is no Parquet.
    """
    if source.is_dir():
        scored = source / SCORED_FILE
        files = [scored] if scored.is_file() else sorted(source.rglob("*.parquet"))
    else:
        files = [source]
    if not files or not all(each.is_file() for each in files):
        raise Misconfigured(f"{source} holds no Parquet; write some with `millstream replay EVENTS --out {source}`")
    try:
        return pl.read_parquet(files)
    except pl.exceptions.PolarsError as error:
        raise Misconfigured(f"{source} cannot be read as Parquet: {error}") from error


def with_event_times(features: pl.DataFrame, column: str) -> pl.DataFrame:
    """Return the features with event times in milliseconds since the epoch, whatever unit their type has.

    Whole numbers are milliseconds already.

    Raises
    ------
    Misconfigured
        A value is no time, or no whole millisecond.
    """
    if column not in features.columns or features.schema[column].is_integer():
        return features
    field = Field(column, "long", nullable=True, logical_type="timestamp-millis")
    values, nulls, failed = convert(features[column], field)
    if failed.any():
        found = explain(features[column][int(np.argmax(failed))], field, column, Reading())
        raise Misconfigured(f"the training data's column {column!r}: {found}")
    times_ms = pl.select(pl.when(pl.Series(nulls).not_()).then(pl.Series(values.astype(np.int64)))).to_series()
    return features.with_columns(times_ms.alias(column))


def labels_of(path: Path, event_id: Field, column: str | None, default: str, declared: Declared) -> LabelFile:
    """Return the labels of a file of any format, or of a directory of Parquet; raises as `with_labels` does.

    Parameters
    ----------
    column : str or None
        The labels' column; None: the column ``default`` or ``label``.
    """
    if not path.is_dir():
        return read_labels(path, event_id, column, default, declared)
    frame = read_features(path)
    columns = label_columns(frame.columns, event_id, column, default)
    return of_chunks([Chunk(0, frame, [], {})], columns, event_id, path.name, declared.reading)


def with_labels(
    features: pl.DataFrame,
    labels: pl.DataFrame | LabelFile,
    event_id: str,
    label: str,
    as_of_ms: int | None,
    precedence: Sequence[str] = (),
    note: Callable[[str], None] = lambda _: None,
    within: tuple[str, int] | None = None,
) -> pl.DataFrame:
    """Return the features with a label column (null where there is none), and `KNOWN_AT` if the labels have it.

    Of several labels of one event that were known by ``as_of_ms`` the one of the most trusted source that was not
    retracted counts, and of that source the last one. Without `KNOWN_AT`, the last row counts.

    Parameters
    ----------
    features : DataFrame
        With the column ``event_id``.
    labels : DataFrame or LabelFile
        With ``event_id`` (under that name, or as ``event_id`` of the labels contract) and ``label``.
    precedence : sequence of str
        Sources, the most trusted first.
    note : callable
        Takes sentences about labels that are left out.
    within : tuple of (str, int), optional
        Column of event times and the label horizon, both milliseconds: a statement known later than that after its
        event does not count, as in the join. Statements without `KNOWN_AT` have no such time.

    Raises
    ------
    Misconfigured
        A column is missing, or holds something else than labels and times.
    """
    if event_id not in features.columns:
        raise Misconfigured(f"the training data has no event id {event_id!r}; is it what `millstream replay` wrote?")
    whole = features.schema[event_id].is_integer()
    if not whole and features.schema[event_id] != pl.String:
        raise Misconfigured(
            f"the training data has event ids of type {features.schema[event_id]}; they must be whole numbers or text, "
            "as `millstream replay` writes them"
        )
    if isinstance(labels, pl.DataFrame):
        labels = of_frame(labels, Field(event_id, "long" if whole else "string"), label)
    unusable = labels.note()
    if unusable is not None:
        note(unusable)
    frame = _statements(labels)
    if within is not None:
        features = with_event_times(features, within[0])
        frame = _in_time(frame, features, event_id, *within, note)
    believed = _believed(frame, labels.dated, as_of_ms, precedence)
    if not whole:
        believed = believed.with_columns(pl.col(EVENT_ID).cast(pl.String))
    elif believed.schema[EVENT_ID] != features.schema[event_id]:
        believed = believed.with_columns(pl.col(EVENT_ID).cast(features.schema[event_id], strict=False))
    kept = [pl.col(EVENT_ID).alias(event_id), pl.col(LABEL).alias(label), *([KNOWN_AT] if labels.dated else [])]
    believed = believed.select(kept)
    strangers = believed.join(features.select(event_id), on=event_id, how="anti").height
    if strangers:
        note(f"{strangers:,} of {believed.height:,} labelled events are not in the training data")
    return features.drop(label, KNOWN_AT, strict=False).join(believed, on=event_id, how="left", maintain_order="left")


def _statements(labels: LabelFile) -> pl.DataFrame:
    """Return the rows that state something: a label, or its retraction."""
    rows = labels.rows
    ids = pl.Int64 if rows.columns[EVENT_ID].dtype == np.int64 else pl.String
    names = [EVENT_ID, LABEL, KNOWN_AT, SOURCE, KIND]
    frame = pl.DataFrame(
        {name: rows.columns[name] for name in names},
        schema={EVENT_ID: ids, LABEL: pl.Float64, KNOWN_AT: pl.Int64, SOURCE: pl.String, KIND: pl.String},
    )
    frame = frame.with_columns(
        pl.when(pl.Series(rows.is_null(name)).not_()).then(pl.col(name)).alias(name) for name in (LABEL, KNOWN_AT)
    )
    return frame.filter(pl.col(LABEL).is_not_null() | _RETRACTION)


def _in_time(
    frame: pl.DataFrame,
    features: pl.DataFrame,
    event_id: str,
    time_column: str,
    horizon_ms: int,
    note: Callable[[str], None],
) -> pl.DataFrame:
    """Return the statements that became known within the label horizon of their event, or name no time."""
    ids = pl.col(event_id).cast(frame.schema[EVENT_ID], strict=False).alias(EVENT_ID)
    events = features.select(ids, pl.col(time_column).alias(_TIME)).unique(EVENT_ID, keep="last")
    kept = (
        frame.join(events, on=EVENT_ID, how="left", maintain_order="left")
        .filter((pl.col(KNOWN_AT) - pl.col(_TIME) <= horizon_ms).fill_null(value=True))
        .drop(_TIME)
    )
    if kept.height < frame.height:
        note(
            f"{frame.height - kept.height:,} of {frame.height:,} labels are left out: they became known more than "
            f"{horizon_ms // _DAY_MS} days after their event (MILLSTREAM_LABEL_HORIZON_DAYS), and do not count live"
        )
    return kept


def _believed(frame: pl.DataFrame, dated: bool, as_of_ms: int | None, precedence: Sequence[str]) -> pl.DataFrame:
    """Return the label of each event that has one: id, label and known time."""
    if dated and as_of_ms is not None:
        frame = frame.filter(pl.col(KNOWN_AT).is_null() | (pl.col(KNOWN_AT) <= as_of_ms))
    if dated:
        kind = pl.col(KIND).replace_strict(KINDS, range(len(KINDS)), return_dtype=pl.Int64)
        frame = frame.sort(pl.col(KNOWN_AT), kind, pl.col(LABEL), maintain_order=True)
    frame = frame.unique([EVENT_ID, SOURCE], keep="last", maintain_order=True).filter(~_RETRACTION)
    if precedence:
        ranks = {source: -rank for rank, source in enumerate(precedence)}
        rank = pl.col(SOURCE).replace_strict(ranks, default=-len(precedence), return_dtype=pl.Int64)
        frame = frame.sort(rank, maintain_order=True)
    return frame.unique(EVENT_ID, keep="last", maintain_order=True)
