"""Headline quality figures as metrics: over all groups and mature days, and label completeness."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from millstream.adapters.telemetry.metrics import Telemetry
from millstream.core.ledger.tally import SIZE, STATES, LedgerReport, counters
from millstream.core.quality.report import SlotFigures


class QualityMetrics:
    """Sets the metrics from published figures.

    Parameters
    ----------
    telemetry : Telemetry
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def __call__(
        self, reported: Sequence[SlotFigures], ledger_reports: Mapping[int, LedgerReport], as_of_ms: int
    ) -> None:
        """Set the metrics from published figures and the join's reports by partition, as of a time."""
        telemetry = self._telemetry
        telemetry.gauge("millstream_quality_as_of_seconds", max(0, as_of_ms) / 1000)
        total = counters(sum((each.tally for each in ledger_reports.values()), np.zeros(SIZE, dtype=np.int64)))
        for state in STATES:
            telemetry.gauge("millstream_labels", total[state], state=state)
        for each in reported:
            series = each.slot.series
            everybody = each.slot.group in {"", f"{each.slot.group.partition('=')[0]}=*"}
            if each.day is not None or series.protocol != "delayed" or not everybody:
                continue
            of = {
                "arm": series.arm,
                "model": series.model,
                "version": series.version,
                "maturity_days": each.slot.maturity_days,
            }
            for metric, figure in each.figures.items():
                if math.isnan(figure.value):
                    telemetry.forget("millstream_quality", metric=metric, **of)
                else:
                    telemetry.gauge("millstream_quality", figure.value, metric=metric, **of)
            if not math.isnan(each.coverage):
                telemetry.gauge("millstream_quality_coverage", each.coverage, **of)
