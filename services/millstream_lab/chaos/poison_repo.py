"""A contracts folder and a Feast repo made from one contract, so that any event topic can be poisoned."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from millstream.adapters.files.contracts import ENGINE_TOPICS, SUFFIX, schemas_dir
from millstream.errors import Misconfigured
from millstream.settings import Settings
from millstream.topology import LABELS
from millstream_lab.chaos.poison_schemas import Json, bare

DAY_MS: Final = 86_400_000
LATENESS_MS: Final = 7 * DAY_MS
LONGEST_MS: Final = 30 * DAY_MS

_STORE = """\
project: millstream_poison
provider: local
registry:
  registry_type: sql
  path: sqlite:///feast-registry.db
online_store:
  type: millstream.adapters.feast.online_store.MillstreamRedisOnlineStore
offline_store:
  type: duckdb
entity_key_serialization_version: 3
"""
_HEAD = """\
from datetime import timedelta

from feast import Entity, FeatureService, Field, FileSource, KafkaSource, ValueType
from feast.aggregation import Aggregation
from feast.data_format import AvroFormat
from feast.stream_feature_view import StreamFeatureView
from feast.types import Float64, Int64
"""
_VIEW = """
{join_key} = Entity(name="{join_key}", join_keys=["{join_key}"], value_type=ValueType.{value_type})
by_{join_key} = StreamFeatureView(
    name="by_{join_key}",
    entities=[{join_key}],
    ttl=timedelta(days=60),
    source=KafkaSource(
        name="{join_key}_events",
        topic="{topic}",
        timestamp_field="{time}",
        message_format=AvroFormat(""),
        watermark_delay_threshold=timedelta(milliseconds={lateness_ms}),
        batch_source=FileSource(name="{join_key}_log", path="offline/*.parquet", timestamp_field="event_timestamp"),
    ),
    aggregations=[
        Aggregation(column=column, function=function, time_window=timedelta(days=days), name=f"{{column}}_{{days}}d")
        for column, function in {columns}
        for days in (1, 30)
    ],
    timestamp_field="{time}",
    schema=[
        Field(name=f"{{column}}_{{days}}d", dtype=Int64 if function == "count" else Float64)
        for column, function in {columns}
        for days in (1, 30)
    ],
    online=True,
)
"""


@dataclass(frozen=True, slots=True)
class PoisonRepo:
    """Where the files are.

    Parameters
    ----------
    topic : str
        Event topic, also the contract's name.
    feature_repo, schemas : Path
        Folders.
    contract, foreign : mapping
        Avro JSON of the topic, and of another one.
    summed : set of str
        Real fields that windows sum.
    hops : int
        Stages: 2 where the contract has a second field to keep features by, else 1.
    """

    topic: str
    feature_repo: Path
    schemas: Path
    contract: Json
    foreign: Json
    summed: frozenset[str]
    hops: int

    def write(self, contract: Json) -> None:
        """Put another version of the contract in its place."""
        (self.schemas / f"{self.topic}{SUFFIX}").write_text(json.dumps(contract, indent=2))


def write_repo(settings: Settings, topic: str, directory: Path) -> PoisonRepo:
    """Write both folders.

    Parameters
    ----------
    settings : Settings
        Whose contracts to copy.

    Raises
    ------
    Misconfigured
        There is no such contract, or it is none of events from outside.
    """
    source = schemas_dir(settings)
    events: dict[str, Json] = {}
    for path in sorted(source.glob(f"*{SUFFIX}")):
        contract: Json = json.loads(path.read_text())
        roles = contract.get("millstream", {})
        if path.stem not in set(ENGINE_TOPICS) - {LABELS} and all(
            role in roles for role in ("key", "event_id", "event_time")
        ):
            events[path.stem] = contract
    if topic not in events:
        raise Misconfigured(f"{topic!r} is no contract of events in {source}; there are: {', '.join(events) or 'none'}")
    contract = events.pop(topic)
    foreign = next(
        (each for each in events.values() if each["name"] != contract["name"]),
        {"type": "record", "name": "Foreign", "fields": [{"name": "x", "type": "long"}]},
    )
    schemas, repo = directory / "schemas", directory / "feature_repo"
    shutil.copytree(source, schemas)
    repo.mkdir()
    kinds = {field["name"]: bare(field["type"]) for field in contract["fields"]}
    roles = contract["millstream"]
    reals = [name for name, kind in kinds.items() if kind in ("double", "float", ["null", "double"])]
    keys = [roles["key"]]
    if roles["key"] != roles["event_id"]:
        taken = set(roles.values())
        keys += [name for name, kind in kinds.items() if kind in ("long", "string") and name not in taken][:1]
    columns = [(name, "mean") for name in reals] + [(roles["event_id"], "count")]
    views = [
        _VIEW.format(
            join_key=key,
            value_type="STRING" if kinds[key] == "string" else "INT64",
            topic=topic,
            time=roles["event_time"],
            lateness_ms=LATENESS_MS,
            columns=columns,
        )
        for key in keys
    ]
    service = f'\npoison = FeatureService(name="poison", features=[{", ".join(f"by_{key}" for key in keys)}], '
    (repo / "feature_store.yaml").write_text(_STORE)
    (repo / "definitions.py").write_text(_HEAD + "".join(views) + service + 'tags={"baseline": "0.0"})\n')
    return PoisonRepo(topic, repo, schemas, contract, foreign, frozenset(reals), len(keys))


def relaxed(contract: Json) -> tuple[Json, str, str]:
    """Return the contract with one limit taken away, which one that is, and the reason it gave until now.

    It is the first limit of a field without a role; a contract that has none stays as it is.
    """
    roles = set(contract["millstream"].values())
    for field in contract["fields"]:
        for limit, reason in (("minimum", "range"), ("maximum", "range"), ("max_length", "too-long")):
            if limit in field and field["name"] not in roles:
                changed = {name: value for name, value in field.items() if name != limit}
                fields = [changed if each is field else each for each in contract["fields"]]
                return {**contract, "fields": fields}, f"{limit} {field[limit]} of {field['name']} is no more", reason
    return contract, "the contract has no limit to take away", "range"
