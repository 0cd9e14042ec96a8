"""Whole numbers and missing entities from the event to `scored`: exact, null or refused, never something else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from flights import CONTRACT, flights_repo
from millstream.adapters.feast.column_types import with_column_types
from millstream.adapters.feast.offline_log import view_table, with_entity
from millstream.adapters.feast.repo import check_columns, load_declaration
from millstream.app.assembly import Assembly, assemble
from millstream.app.late_labels import Labels
from millstream.app.replaying import History
from millstream.core.avro.encode import RecordWriter
from millstream.core.batch import Batch
from millstream.core.partitioner import partition_of
from millstream.errors import Misconfigured
from millstream.runtime.log.records import Records

DAY_MS = 86_400_000
START_MS = 1_541_030_400_000
ID = 2**53


@pytest.fixture(scope="module")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    return assemble(flights_repo(tmp_path_factory.mktemp("flights")))


def flights(count: int, tails: list[str | None]) -> Batch:
    """Return a flight a minute by two carriers; every third has no seat id."""
    tail = np.array([tails[row % len(tails)] or "" for row in range(count)], dtype=object)
    return Batch(
        count,
        {
            "flight": np.array([f"f{row}" for row in range(count)], dtype=object),
            "carrier": np.array(["AA", "BB"] * count, dtype=object)[:count],
            "tail": tail,
            "departs_at_ms": START_MS + 60_000 * np.arange(count),
            "seat_id": ID + np.arange(count),
            "cents": np.full(count, 10**9),
            "miles": np.linspace(100, 200, count),
        },
        {"tail": tail == "", "seat_id": np.arange(count) % 3 == 2},
    )


def values(batch: Batch, name: str) -> list[object]:
    nulls = batch.is_null(name).tolist()
    return [None if null else value for value, null in zip(batch.columns[name].tolist(), nulls, strict=True)]


def test_ids_beyond_doubles_are_exact_to_the_scored_record(assembly: Assembly) -> None:
    scored = History(assembly).feed(flights(8, ["N1"])).scored
    # Carriers take turns, and rows 2 and 5 have no seat id.
    assert values(scored, "carrier_day__last_seat_id") == [ID + row for row in (0, 1, 0, 3, 4, 3, 6, 7)]
    assert values(scored, "plane_day__last_seat") == [ID + row for row in (0, 1, 1, 3, 4, 4, 6, 7)]
    assert values(scored, "carrier_day__seats") == [1, 1, 1, 2, 2, 2, 3, 3]
    table = view_table(assembly.declaration.views[0], scored, 0)
    assert table["last_seat_id"].to_pylist() == values(scored, "carrier_day__last_seat_id")


def test_a_sum_beyond_its_type_is_null_and_counted_and_the_event_is_scored(
    assembly: Assembly, caplog: pytest.LogCaptureFixture
) -> None:
    history = History(assembly)
    batch = flights(8, ["N1"])
    replayed = history.feed(batch)
    assert (replayed.scored.length, replayed.dead_letters.length) == (8, 0)
    sums = [10**9 * (row // 2 + 1) for row in range(8)]
    assert values(replayed.scored, "carrier_day__cents") == sums
    assert values(replayed.scored, "carrier_day__cents32") == [each if each < 2**31 else None for each in sums]
    assert sum("carrier_day__cents32: a value is no int32" in each for each in caplog.messages) == 1
    stage = assembly.stage(assembly.topology.stages[0], assembly.resolver())
    stage.featurize.stores[0] = stage.featurize.new_store()
    bytes_of = RecordWriter(assembly.contract.schema).encode(batch)
    keys = [text.encode() for text in batch.columns["carrier"].tolist()]
    zeros = np.zeros(8, dtype=np.int64)
    done = stage.process([Records("flights", zeros, np.arange(8), batch.columns["departs_at_ms"], keys, bytes_of)], 0)
    assert done.flows[0].counts["beyond:carrier_day__cents32"] == 4
    assert done.view_rows[0].wholes is not None


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('miles", dtype=Float64', 'miles", dtype=Int64', ["'last_miles'", "int64", "last of 'miles'", "double"]),
        ('("last_miles", "last"', '("last_miles", "sum"', []),
        ('("cents32", "sum"', '("cents32", "mean"', ["'cents32'", "int32", "mean", "float64"]),
        ('("cents32", "sum", "cents")', '("cents32", "max", "flight")', ["'carrier_day'", "'flight'", "string"]),
    ],
)  # fmt: skip
def test_a_declared_type_that_cannot_hold_the_result_is_refused_at_start(
    tmp_path: Path, before: str, after: str, words: list[str]
) -> None:
    settings = flights_repo(tmp_path, **{before: after})
    if not words:
        assemble(settings)
        return
    with pytest.raises(Misconfigured) as refusal:
        assemble(settings)
    assert [word for word in words if word not in str(refusal.value)] == []


@pytest.mark.parametrize(("function", "refused"), [("count_distinct", True), ("count", False)])
def test_decimals_are_counted_and_nothing_else(tmp_path: Path, function: str, refused: bool) -> None:
    settings = flights_repo(tmp_path, **{'("cents32", "sum", "cents")': f'("cents32", "{function}", "cents")'})
    decimal = '{"name": "cents", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}}'
    assert settings.schemas_dir is not None
    contract = CONTRACT.replace('{"name": "cents", "type": "long"}', decimal)
    (settings.schemas_dir / "flights.avsc").write_text(contract)
    text = (settings.feature_repo / "definitions.py").read_text()
    (settings.feature_repo / "definitions.py").write_text(
        text.replace('("cents", "sum", "cents")', '("cents", "count", "cents")')
    )
    if refused:
        with pytest.raises(Misconfigured, match=r"count_distinct of 'cents', which is a decimal .* supported .* count"):
            assemble(settings)
        return
    assemble(settings)


def test_an_event_without_a_later_entity_has_null_features_and_a_prediction(assembly: Assembly) -> None:
    history = History(assembly)
    replayed = history.feed(flights(40, ["N1", None]))
    scored = replayed.scored
    assert (scored.length, replayed.dead_letters.length) == (40, 0)
    missing = [row % 2 == 1 for row in range(40)]
    for name in ("plane_day__hops", "plane_day__last_seat", "plane_delays__delays", "plane__feature_time_us"):
        assert [value is None for value in values(scored, name)] == missing, name
    assert values(scored, "carrier_day__flights") == [row // 2 + 1 for row in range(40)]
    assert values(scored, "score") == [float(row > 3) if row % 2 == 0 else 0.0 for row in range(40)]
    plane_view = assembly.declaration.views[1]
    assert with_entity(plane_view, scored).columns["tail"].tolist() == ["N1"] * 20
    stores = history.replay.stages[1].featurize.stores
    assert [key for store in stores.values() for key in store.keys_of(store.all_slots()).tolist()] == ["N1"]


def test_events_without_the_entity_spread_over_the_partitions_by_their_id(assembly: Assembly) -> None:
    stage = assembly.stage(assembly.topology.stages[0], assembly.resolver())
    stage.featurize.stores[0] = stage.featurize.new_store()
    batch = flights(200, [None, None, "N1"])
    values_ = RecordWriter(assembly.contract.schema).encode(batch)
    keys = [text.encode() for text in batch.columns["carrier"].tolist()]
    zeros = np.zeros(200, dtype=np.int64)
    records = Records("flights", zeros, np.arange(200), batch.columns["departs_at_ms"], keys, values_)
    (output,) = stage.process([records], 0).outputs
    assert [key for key, missing in zip(output.keys, batch.nulls["tail"], strict=True) if not missing] == [b"N1"] * 66
    spread = Counter(partition_of([key for key in output.keys if key is not None and key != b"N1"], 4).tolist())
    assert len(spread) == 4
    assert max(spread.values()) < 60


def test_labels_of_events_without_the_entity_concern_nobody_there(assembly: Assembly) -> None:
    history = History(assembly)
    batch = flights(30, ["N1", None, "N2"])
    late = history.feed(batch, Labels.after(np.ones(30), batch.columns["departs_at_ms"], 10 * 60_000))
    assert late.dead_letters.length == 0
    rows = {name: values(late.scored, f"plane_delays__{name}") for name in ("delays", "last_late_seat")}
    tails = values(batch, "tail")
    for row in range(30):
        known = [at for at in range(30) if at <= row - 10 and tails[at] == tails[row]]
        seats = [ID + at for at in known if at % 3 != 2]
        wanted = (None, None) if tails[row] is None else (len(known), seats[-1] if seats else None)
        assert (rows["delays"][row], rows["last_late_seat"][row]) == wanted, row


def test_a_null_key_is_a_dead_letter_where_the_entity_says_so(tmp_path: Path) -> None:
    assembly = assemble(flights_repo(tmp_path / "a", tags=', tags={"null_key": "dead_letter"}'))
    replayed = History(assembly).feed(flights(10, ["N1", None]))
    assert replayed.scored.length == 5
    assert replayed.dead_letters.columns["reason"].tolist() == ["null-key"] * 5
    with pytest.raises(Misconfigured, match=r"entity 'plane' has the tag null_key='drop'; supported: null_features, "):
        load_declaration(flights_repo(tmp_path / "b", tags=', tags={"null_key": "drop"}'))


def test_types_do_not_change_what_was_declared(assembly: Assembly) -> None:
    declared = load_declaration(assembly.settings)
    check_columns(declared, assembly.contract)
    assert with_column_types(declared, assembly.contract) == declared, "the codec checked for it is still its own"
