"""What the stage loop tells the metrics."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence

from millstream.adapters.redis.view_writer import ViewWriter
from millstream.adapters.telemetry.metric_catalogue import GaugeName
from millstream.adapters.telemetry.metrics import Telemetry
from millstream.core.batch import Batch
from millstream.runtime.flow import BEYOND, Flow
from millstream.runtime.loop import StageLoop
from millstream.runtime.work import Processed, Recovered
from millstream.topology import PREDICTIONS


class TelemetryObserver:
    """An `Observer` that keeps the catalogue's metrics up to date.

    Parameters
    ----------
    telemetry : Telemetry
    view : ViewWriter or None
        The write-behind view, for its counters.
    stuck_ms : int
        A stage that has not come round for so long is not healthy.
    """

    def __init__(self, telemetry: Telemetry, view: ViewWriter | None, stuck_ms: int) -> None:
        self._telemetry = telemetry
        self._view = view
        self._loops: Sequence[StageLoop] = ()
        self._stuck_s = stuck_ms / 1000
        self._view_failures = 0
        self._view_written: Counter[str] = Counter()

    def watch(self, loops: Sequence[StageLoop]) -> None:
        """Read lag, offsets and state of these loops whenever the metrics are asked for."""
        self._loops = tuple(loops)
        self._telemetry.before_scrape(self._refresh)

    def ready(self) -> Mapping[str, str]:
        """Name the stages whose group has not given out its partitions, or whose share is not recovered yet."""
        return {
            loop.name: "has not joined its group and recovered its share" for loop in self._loops if not loop.joined
        }

    def health(self) -> Mapping[str, str]:
        """Name the stages that have not come round for too long."""
        now_s = time.monotonic()
        return {
            loop.name: f"has not come round for {now_s - loop.progress_at_s:.0f} s"
            for loop in self._loops
            if now_s - loop.progress_at_s > self._stuck_s
        }

    def processed(self, stage: str, records: int, processed: Processed, seconds: Mapping[str, float]) -> None:
        """See `Observer.processed`."""
        tell = self._telemetry
        tell.count("millstream_events_total", records, stage=stage)
        tell.observe("millstream_batch_records", float(records), stage=stage)
        for phase, spent_s in seconds.items():
            tell.observe("millstream_batch_seconds", spent_s, stage=stage, phase=phase)
        # The scored record travels on, with its arm; only who answers counts it. Labels, its other input, have none.
        answers = any(output.topic == PREDICTIONS for output in processed.outputs)
        for flow in processed.flows:
            self._flowed(stage, flow)
            if answers and "arm" in flow.batch.columns:
                self._answered(flow.batch)

    def _flowed(self, stage: str, flow: Flow) -> None:
        tell, batch = self._telemetry, flow.batch
        tell.count("millstream_duplicates_total", flow.counts.get("duplicates", 0), stage=stage)
        tell.count("millstream_late_total", flow.counts.get("late", 0), stage=stage)
        for name, count in flow.counts.items():
            if name.startswith(BEYOND):
                tell.count("millstream_feature_nulls_total", count, stage=stage, feature=name.removeprefix(BEYOND))
        for reason in ("budget", "failed", "silent"):
            if f"online_{reason}" in flow.counts:
                unscored = flow.counts[f"online_{reason}"]
                tell.count("millstream_online_unscored_total", unscored, stage=stage, reason=reason)
        for reason, count in Counter(each.reason for each in flow.rejections).items():
            tell.count("millstream_dead_letters_total", count, stage=stage, reason=reason)
        if batch.length and "received_at_ms" in batch.columns:
            ages_s = (time.time() * 1000 - batch.columns["received_at_ms"]) / 1000
            tell.observe("millstream_end_to_end_seconds", ages_s, stage=stage)

    def _answered(self, batch: Batch) -> None:
        tell, arms = self._telemetry, batch.columns["arm"].tolist()
        for arm, count in Counter(arms).items():
            # Within a micro-batch, an arm is one model in one version.
            first = arms.index(arm)
            model, version = (batch.columns[name][first] for name in ("model", "model_version"))
            if arm == "online":  # its versions are without end, and have a gauge of their own
                tell.count("millstream_predictions_total", count, arm=arm, model=model, version="")
                continue
            tell.count("millstream_predictions_total", count, arm=arm, model=model, version=version)
            tell.gauge("millstream_model_version", version, model=model)
        if "baseline" not in arms:
            tell.forget("millstream_model_version", model="baseline")

    def checkpointed(self, stage: str, rows: int, seconds: float) -> None:
        """See `Observer.checkpointed`."""
        self._telemetry.count("millstream_checkpoint_rows_total", rows, stage=stage)
        self._telemetry.observe("millstream_checkpoint_seconds", seconds, stage=stage)

    def recovered(self, stage: str, partition: int, recovered: Recovered, seconds: float) -> None:
        """See `Observer.recovered`."""
        self._telemetry.observe("millstream_recovery_seconds", seconds, stage=stage)
        self._telemetry.count("millstream_recovery_records_total", recovered.rows, stage=stage, kind="rows")
        self._telemetry.count("millstream_recovery_records_total", recovered.replayed, stage=stage, kind="replayed")

    def revoked(self, stage: str, partitions: Sequence[int]) -> None:
        """See `Observer.revoked`."""
        for partition in partitions:
            gauges: tuple[GaugeName, ...] = (
                "millstream_lag_records",
                "millstream_committed_offset",
                "millstream_stream_time_seconds",
                "millstream_state_entries",
                "millstream_state_bytes",
                "millstream_state_keys",
            )
            for name in gauges:
                self._telemetry.forget(name, stage=stage, partition=partition)

    def _refresh(self) -> None:
        tell = self._telemetry
        for loop in self._loops:
            stage = loop.name
            tell.gauge("millstream_partitions", len(loop.partitions), stage=stage)
            lags = loop.log.lag() if loop.partitions else {}
            offsets = loop.next_offsets
            for partition in loop.partitions:
                at = {"stage": stage, "partition": partition}
                places = [(topic, partition) for topic in loop.work.inputs]
                tell.gauge("millstream_lag_records", sum(lags.get(place, 0) for place in places), **at)
                tell.gauge("millstream_committed_offset", offsets.get(places[0], 0), **at)
                size = loop.work.state_size(partition)
                if size is not None:
                    tell.gauge("millstream_stream_time_seconds", max(0, size.stream_time_ms) / 1000, **at)
                    tell.gauge("millstream_state_keys", size.keys, **at)
                    tell.gauge("millstream_state_entries", size.entries, **at)
                    tell.gauge("millstream_state_bytes", size.memory_bytes, **at)
        if self._view is not None:
            tell.gauge("millstream_view_pending", self._view.pending)
            tell.gauge("millstream_view_staleness_seconds", self._view.staleness_ms / 1000)
            failures, written = self._view.failures, self._view.written_by_view.copy()
            tell.count("millstream_view_failures_total", failures - self._view_failures)
            for view, rows in written.items():
                tell.count("millstream_view_written_total", rows - self._view_written[view], view=view)
            self._view_failures, self._view_written = failures, written
