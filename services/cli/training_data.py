"""Replayed features and their labels as one table to train on."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from services.errors import Misconfigured

SCORED_FILE = "scored.parquet"
KNOWN_AT = "known_at_ms"
"""Column of a labels file with the time each label became known; without it, event time plus the label delay."""
_RETRACTION = "retraction"


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


def with_labels(
    features: pl.DataFrame, labels: pl.DataFrame, event_id: str, label: str, as_of_ms: int | None
) -> pl.DataFrame:
    """Return the features with a label column (null where there is none), and `KNOWN_AT` if the labels have it.

    Of several labels of one event the last one known by ``as_of_ms`` counts; a retraction takes them back. Without
    `KNOWN_AT`, the last row counts.

    Parameters
    ----------
    features : DataFrame
        With the column ``event_id``.
    labels : DataFrame
        With ``event_id`` (under that name, or as ``event_id`` of the labels contract) and ``label``.

    Raises
    ------
    Misconfigured
        A column is missing.
    """
    key = event_id if event_id in labels.columns else "event_id"
    missing = [name for name in (key, label) if name not in labels.columns]
    if missing:
        raise Misconfigured(
            f"the labels have no column {', '.join(missing)}; there are: {', '.join(labels.columns)}. "
            "Name the label's with --label-column"
        )
    if event_id not in features.columns:
        raise Misconfigured(f"the training data has no event id {event_id!r}; is it what `millstream replay` wrote?")
    if KNOWN_AT in labels.columns:
        labels = labels.with_columns(pl.col(KNOWN_AT).to_physical().cast(pl.Int64))
        if as_of_ms is not None:
            labels = labels.filter(pl.col(KNOWN_AT) <= as_of_ms)
        labels = labels.sort(KNOWN_AT, maintain_order=True)
    labels = labels.unique(key, keep="last", maintain_order=True)
    if "kind" in labels.columns:
        labels = labels.filter(pl.col("kind").cast(pl.String) != _RETRACTION)
    kept = [pl.col(key).alias(event_id), label, *([KNOWN_AT] if KNOWN_AT in labels.columns else [])]
    labels = labels.select(kept)
    if labels.schema[event_id] != features.schema[event_id]:
        labels = labels.with_columns(pl.col(event_id).cast(features.schema[event_id], strict=False))
    return features.drop(label, KNOWN_AT, strict=False).join(labels, on=event_id, how="left", maintain_order="left")
