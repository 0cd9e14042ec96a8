"""Records that lie in another partition than their key's are turned away by name, in every run alike."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cards import TRANSACTIONS, events, published
from millstream.core.avro.decode import RecordReader
from millstream.core.contracts import NOT_AFTER_MS, Contract
from millstream.core.partitioner import partition_of
from millstream.runtime.log.records import Records
from millstream.stages.validate.step import Validate


def records(partitions: np.ndarray, seed: int) -> Records:
    output = published(events(len(partitions), seed))
    n = np.arange(len(partitions), dtype=np.int64)
    return Records("transactions", partitions, n, np.array(output.timestamps_ms), output.keys, output.values)


@given(st.lists(st.integers(0, 4), max_size=30), st.integers(1, 5), st.integers(0, 9))
def test_exactly_the_records_elsewhere_are_rejected(found: list[int], count: int, seed: int) -> None:
    given_records = records(np.array(found, dtype=np.int64), seed)
    reader = RecordReader(TRANSACTIONS.schema, lambda _id: None)
    flow = Validate(reader, 10_000, TRANSACTIONS, partitions=count)(given_records)
    expected = partition_of([key or b"" for key in given_records.keys], count)
    wrong = np.flatnonzero(expected != np.array(found, dtype=np.int64)).tolist()
    assert [each.row for each in flow.rejections] == wrong
    assert {each.reason for each in flow.rejections} <= {"wrong-partition"}
    assert sorted([*flow.rows.tolist(), *wrong]) == list(range(len(found)))
    assert not Validate(reader, 10_000, TRANSACTIONS)(given_records).rejections


def test_a_null_key_and_bad_records_beside_it_have_their_own_reasons() -> None:
    sound = records(np.array([2, 2, 2, 2], dtype=np.int64), 1)
    given_records = replace(sound, keys=[None, *sound.keys[1:]], values=[*sound.values[:3], b"?"])
    flow = Validate(RecordReader(TRANSACTIONS.schema, lambda _id: None), 10_000, TRANSACTIONS, partitions=1)(
        given_records
    )
    reasons = {each.row: each.reason for each in flow.rejections}
    assert reasons == {0: "null-key", 1: "wrong-partition", 2: "wrong-partition", 3: "unknown-framing"}


def test_a_private_key_stays_out_of_the_sentence() -> None:
    flow = Validate(RecordReader(TRANSACTIONS.schema, lambda _id: None), 10_000, TRANSACTIONS, partitions=1)(
        records(np.array([1], dtype=np.int64), 1)
    )
    (detail,) = [each.detail for each in flow.rejections]
    assert detail.startswith("the record lies in partition 1, but its key belongs to partition 0 of 1")


@pytest.mark.parametrize(("ahead_ms", "sound"), [(NOT_AFTER_MS, True), (NOT_AFTER_MS + 1, False), (-(10**12), True)])
def test_an_event_time_has_a_bound_where_the_contract_declares_none(ahead_ms: int, sound: bool) -> None:
    source = json.loads(TRANSACTIONS.schema.to_json())
    fields = [{k: v for k, v in field.items() if k != "not_after_ms"} for field in source["fields"]]
    bare = Contract.parse({**source, "fields": fields})
    batch = events(1)
    received = batch.columns["event_time_ms"] - ahead_ms
    mask, rejections = bare.validate(batch, received, [b"%d" % batch.columns["customer_id"][0]])
    assert mask.tolist() == [sound]
    assert [each.reason for each in rejections] == ([] if sound else ["from-the-future"])
