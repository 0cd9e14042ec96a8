"""The quality topic as any subscriber reads it: the newest figure of each kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from millstream.adapters.embedded.endpoints import resolve
from millstream.adapters.files.contracts import load_contract
from millstream.adapters.kafka.client import read_committed
from millstream.adapters.kafka.schema_topic import schema_resolver
from millstream.app.newest import partitions_of
from millstream.core.avro.decode import RecordReader
from millstream.core.batch import Batch
from millstream.core.quality.scored_records import ANSWER, BLEND, CHAMPION, ONLINE
from millstream.settings import Settings
from millstream.topology import QUALITY

if TYPE_CHECKING:
    import polars as pl

ARMS = (ANSWER, CHAMPION, ONLINE, BLEND)
_FIELDS = (
    *("protocol", "model", "model_version", "arm", "day_start_ms", "maturity_days", "group_column", "group", "metric"),
    *("value", "lower", "upper", "mature", "coverage", "examples", "positives", "as_of_ms", "resolution"),
)
_MOST_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class QualityRecord:
    """A record of the quality topic; see ``schemas/quality.avsc`` for each field."""

    protocol: str
    model: str
    model_version: int
    arm: str
    day_start_ms: int | None
    maturity_days: int
    group_column: str
    group: str
    metric: str
    value: float | None
    lower: float | None
    upper: float | None
    mature: bool
    coverage: float | None
    examples: int
    positives: int
    as_of_ms: int
    resolution: float | None = None

    @property
    def who(self) -> tuple[int, str, int]:
        """Arm in the order of `ARMS`, model and version."""
        return ARMS.index(self.arm) if self.arm in ARMS else len(ARMS), self.model, self.model_version

    @property
    def day(self) -> str:
        """The day as a date, "" for all mature days together."""
        if self.day_start_ms is None:
            return ""
        return datetime.fromtimestamp(self.day_start_ms / 1000, UTC).date().isoformat()

    def as_json(self) -> dict[str, Any]:
        """Return the record's fields."""
        return asdict(self)


def read_figures(settings: Settings) -> list[QualityRecord]:
    """Return the newest figure of each kind that is defined, in order of protocol, day, who, maturity, group.

    Raises
    ------
    Misconfigured, Retry, Stop
        There is no such topic, or it cannot be read.
    """
    kafka = resolve(settings, redis=False).kafka
    schema = load_contract(settings, QUALITY).schema
    resolver = schema_resolver(settings, kafka, [schema])
    newest: dict[bytes, bytes] = {}
    partitions_of(kafka, QUALITY)
    for messages in read_committed(kafka, QUALITY, 0, 0, None):
        for message in messages:
            key, value = message.key() or b"", message.value()
            newest.pop(key, None)
            if value is not None:
                newest[key] = value
    found = decoded(RecordReader(schema, resolver).decode(list(newest.values()), _MOST_BYTES).batch)
    return sorted(
        (each for each in found if each.examples and each.value is not None),
        key=lambda each: (each.protocol, each.day, each.who, each.maturity_days, each.group_column, each.group),
    )


def figures_frame(figures: Sequence[QualityRecord]) -> pl.DataFrame:
    """Return the figures as a table, a row each."""
    import polars as pl

    kinds = {"int": pl.Int64, "float": pl.Float64, "bool": pl.Boolean, "str": pl.String}
    schema = {each.name: kinds[str(each.type).partition(" ")[0]] for each in fields(QualityRecord)}
    return pl.DataFrame([each.as_json() for each in figures], schema=schema)


def decoded(batch: Batch) -> Iterator[QualityRecord]:
    """Yield the records of a batch of the quality topic."""
    nulls = {name: batch.is_null(name).tolist() for name in _FIELDS}
    columns = {
        name: [None if null else value for value, null in zip(batch.columns[name].tolist(), nulls[name], strict=True)]
        for name in _FIELDS
    }
    return (QualityRecord(*values) for values in zip(*columns.values(), strict=True))


def select(
    figures: Iterable[QualityRecord],
    protocol: str,
    maturity_days: int,
    metric: str | None = None,
    by_day: bool | None = None,
) -> list[QualityRecord]:
    """Return the figures of one protocol and maturity; of one metric, by day or of all mature days, if wanted."""
    return [
        each
        for each in figures
        if each.protocol == protocol
        and each.maturity_days == maturity_days
        and metric in {None, each.metric}
        and by_day in {None, each.day_start_ms is not None}
    ]


def maturities(figures: Sequence[QualityRecord], protocol: str) -> list[int]:
    """Return the maturities there are, ascending."""
    return sorted({each.maturity_days for each in figures if each.protocol == protocol})
