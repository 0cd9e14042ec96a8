"""The catalogue of metrics: name, kind, labels, help, buckets; no other metric can be set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

CounterName = Literal[
    "millstream_events_total",
    "millstream_predictions_total",
    "millstream_dead_letters_total",
    "millstream_duplicates_total",
    "millstream_late_total",
    "millstream_feature_nulls_total",
    "millstream_checkpoint_rows_total",
    "millstream_recovery_records_total",
    "millstream_view_written_total",
    "millstream_view_failures_total",
    "millstream_online_refused_total",
    "millstream_online_unscored_total",
]
GaugeName = Literal[
    "millstream_partitions",
    "millstream_lag_records",
    "millstream_committed_offset",
    "millstream_stream_time_seconds",
    "millstream_state_keys",
    "millstream_state_entries",
    "millstream_state_bytes",
    "millstream_view_pending",
    "millstream_view_staleness_seconds",
    "millstream_model_version",
    "millstream_online_version",
    "millstream_process_rss_bytes",
    "millstream_labels",
    "millstream_quality",
    "millstream_quality_coverage",
    "millstream_quality_as_of_seconds",
]
HistogramName = Literal[
    "millstream_batch_records",
    "millstream_batch_seconds",
    "millstream_end_to_end_seconds",
    "millstream_checkpoint_seconds",
    "millstream_recovery_seconds",
]


@dataclass(frozen=True, slots=True)
class Metric:
    """What one metric is.

    Parameters
    ----------
    help : str
        One sentence for an operator; the unit is in the name.
    labels : tuple of str
        Label names, in exposition order.
    buckets : tuple of float
        Upper bounds, ascending, without infinity; histograms only.
    """

    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_STAGE = ("stage",)
_PARTITION = ("stage", "partition")
_SERIES = ("arm", "model", "version", "maturity_days")
_PHASE_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)
# Dense from 2 to 100 ms, where the promised percentiles lie; coarse to a minute, so that a backlog still shows.
_LATENCY_S = (
    *(0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1),
    *(0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)

COUNTERS: Final[Mapping[CounterName, Metric]] = {
    "millstream_events_total": Metric("Records consumed and committed, whatever became of them.", _STAGE),
    "millstream_predictions_total": Metric(
        "Predictions committed; the version is empty for the online model, which has a new one every few seconds.",
        ("arm", "model", "version"),
    ),
    "millstream_dead_letters_total": Metric("Records turned away, by reason.", ("stage", "reason")),
    "millstream_duplicates_total": Metric("Events met before, by event id, and not handled again.", _STAGE),
    "millstream_late_total": Metric("Events older than the declared lateness.", _STAGE),
    "millstream_feature_nulls_total": Metric(
        "Feature values that are null because the declared type cannot hold them; the events are scored.",
        ("stage", "feature"),
    ),
    "millstream_checkpoint_rows_total": Metric("State rows written to the changelog.", _STAGE),
    "millstream_recovery_records_total": Metric(
        "Records read to recover state: changelog rows (kind=rows) and input replayed (kind=replayed).",
        ("stage", "kind"),
    ),
    "millstream_view_written_total": Metric("Rows the online store took.", ("view",)),
    "millstream_view_failures_total": Metric("Writes to the online store that failed and are tried again."),
    "millstream_online_refused_total": Metric("Snapshots of the online model that were not loaded.", ("model",)),
    "millstream_online_unscored_total": Metric(
        "Events that a snapshot of the online model gave no score: out of time (budget), failed, or no opinion yet "
        "(silent).",
        ("stage", "reason"),
    ),
}

GAUGES: Final[Mapping[GaugeName, Metric]] = {
    "millstream_partitions": Metric("Partitions this worker owns and has recovered.", _STAGE),
    "millstream_lag_records": Metric("Records in the partition that this worker has not read yet.", _PARTITION),
    "millstream_committed_offset": Metric("Next offset as committed with the last micro-batch.", _PARTITION),
    "millstream_stream_time_seconds": Metric("Newest event time seen, seconds since the epoch.", _PARTITION),
    "millstream_state_keys": Metric("Entity keys held in window state.", _PARTITION),
    "millstream_state_entries": Metric("Window entries held.", _PARTITION),
    "millstream_state_bytes": Metric("Memory of the window state.", _PARTITION),
    "millstream_view_pending": Metric("Keys waiting to be written to the online store."),
    "millstream_view_staleness_seconds": Metric("Age of the oldest row waiting for the online store."),
    "millstream_model_version": Metric("Version of the model that answers; 0 is the rule baseline.", ("model",)),
    "millstream_online_version": Metric(
        "Examples that the served snapshot of the online model has learnt; 0 while there is none.", ("model",)
    ),
    "millstream_process_rss_bytes": Metric("Resident memory of this process."),
    "millstream_labels": Metric("Events by what is known of them: pending, labelled, retracted, ...", ("state",)),
    "millstream_quality": Metric(
        "A figure over all mature days, on labels known within maturity_days of their events.", (*_SERIES, "metric")
    ),
    "millstream_quality_coverage": Metric("Labelled share of the predictions of those days.", _SERIES),
    "millstream_quality_as_of_seconds": Metric("How far the label stream has come, seconds since the epoch."),
}

HISTOGRAMS: Final[Mapping[HistogramName, Metric]] = {
    "millstream_batch_records": Metric(
        "Records per micro-batch.", _STAGE, (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)
    ),
    "millstream_batch_seconds": Metric("Time per micro-batch, by phase of the work.", ("stage", "phase"), _PHASE_S),
    "millstream_end_to_end_seconds": Metric(
        "From the record's Kafka timestamp to the commit of what the stage made of it.", _STAGE, _LATENCY_S
    ),
    "millstream_checkpoint_seconds": Metric("Time to make a checkpoint, before it is written.", _STAGE, _PHASE_S),
    "millstream_recovery_seconds": Metric(
        "Time to recover one partition's state.", _STAGE, (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
    ),
}

CATALOGUE: Final[Mapping[str, Metric]] = dict([*COUNTERS.items(), *GAUGES.items(), *HISTOGRAMS.items()])
