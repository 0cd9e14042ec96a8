"""Contracts against a row-by-row oracle, and each reason by name."""

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avro_strategies import batch_of, record
from millstream.core.avro.schema import SchemaError
from millstream.core.batch import Batch
from millstream.core.contracts import Contract
from millstream.core.text import as_text

TIME = {"type": "long", "logicalType": "timestamp-millis"}
SOURCE = {
    **record(
        [
            {"name": "amount", "type": "double", "minimum": 0, "exclusive_maximum": 100},
            {
                "name": "ratio",
                "type": ["null", "float"],
                "exclusive_minimum": 0,
                "maximum": 1,
                "allow_non_finite": True,
            },
            {"name": "who", "type": "string", "max_length": 3, "pattern": "[a-z]+", "pii": "pseudonym"},
            {"name": "grade", "type": ["null", "int"], "allowed": [1, 2, 3]},
            {"name": "at", "type": TIME, "not_older_than_ms": 50, "not_after_ms": 10},
        ]
    ),
    "owner": "team",
    "millstream": {"key": "who", "event_id": "who", "event_time": "at"},
}
CONTRACT = Contract.parse(SOURCE)


def oracle(row: dict[str, Any], received: int, key: bytes | None) -> tuple[str, str] | None:  # noqa: PLR0911
    amount, ratio, who, grade, at = (row[name] for name in CONTRACT.schema.names)
    if not math.isfinite(amount):
        return "amount", "not-finite"
    if amount < 0 or amount >= 100:
        return "amount", "range"
    if ratio is not None and (ratio <= 0 or ratio > 1):
        return "ratio", "range"
    if key is None:
        return "who", "null-key"
    if key != who.encode():
        return "who", "key-mismatch"
    if len(who) > 3:
        return "who", "too-long"
    if not re.fullmatch("[a-z]+", who):
        return "who", "pattern"
    if grade is not None and grade not in (1, 2, 3):
        return "grade", "not-allowed"
    if received >= 0 and at < received - 50:
        return "at", "too-old"
    if received >= 0 and at > received + 10:
        return "at", "from-the-future"
    return None


ROWS = st.fixed_dictionaries(
    {
        "amount": st.sampled_from([0.0, 1.5, 99.999, 100.0, -1e-9, math.nan, math.inf]),
        "ratio": st.sampled_from([None, 0.5, 1.0, 0.0, 1.5, math.nan]),
        "who": st.sampled_from(["a", "abc", "abcd", "B", "", "é"]),
        "grade": st.sampled_from([None, 1, 3, 4]),
        "at": st.integers(930, 1030),
    }
)


@given(st.lists(st.tuples(ROWS, st.sampled_from([1000, 990, -1]), st.sampled_from(["same", "same", "other", None]))))
def test_columns_are_judged_as_row_by_row(rows: list[tuple[dict[str, Any], int, str | None]]) -> None:
    batch = batch_of(CONTRACT.schema, [row for row, _, _ in rows])
    received = np.array([each for _, each, _ in rows], dtype=np.int64)
    keys = [
        None if key is None else text if key == "same" else b"?"
        for text, (_, _, key) in zip(as_text(batch.columns["who"]), rows, strict=True)
    ]
    expected = [oracle(row, ms, key) for (row, ms, _), key in zip(rows, keys, strict=True)]
    sound, rejections = CONTRACT.validate(batch, received, keys)
    assert sound.tolist() == [each is None for each in expected]
    assert [(r.row, r.field, r.reason) for r in rejections] == [
        (row, *each) for row, each in enumerate(expected) if each is not None
    ]


def test_details_say_what_is_allowed_and_keep_personal_data_out() -> None:
    rows = [
        {"amount": -3.0, "ratio": None, "who": "a", "grade": 1, "at": 5},
        {"amount": 1.0, "ratio": None, "who": "SECRET", "grade": 1, "at": 5},
    ]
    _, rejections = CONTRACT.validate(batch_of(CONTRACT.schema, rows), np.array([5, 5]), [b"a", b"SECRET"])
    assert rejections[0].detail == "amount is -3.0; allowed: at least 0"
    assert rejections[1].detail == "who is a value; allowed: at most 3"


def test_no_key_declared_means_any_key() -> None:
    contract = Contract.parse(record([{"name": "x", "type": "long"}]))
    sound, _ = contract.validate(Batch(1, {"x": np.array([1])}), np.array([0]), [None])
    assert sound.all()
    assert (contract.key, contract.owner, contract.generation) == ("", "", 1)


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ({"name": "x", "type": "long", "minumum": 0}, "did you mean 'minimum'"),
        ({"name": "x", "type": "string", "minimum": 0}, "minimum does not apply to string"),
        ({"name": "x", "type": "long", "pattern": "a"}, "pattern does not apply"),
        ({"name": "x", "type": "string", "pattern": "("}, "no regular expression"),
        ({"name": "x", "type": "string", "max_length": -1}, "max_length cannot be -1"),
        ({"name": "x", "type": "long", "minimum": "0"}, "minimum cannot be '0'"),
        ({"name": "x", "type": "long", "allowed": []}, "allowed cannot be"),
        ({"name": "x", "type": "long", "not_after_ms": 5}, "timestamp-millis"),
        ({"name": "x", "type": "long", "allow_non_finite": True}, "allow_non_finite does not apply"),
    ],
)
def test_wrong_constraints_are_refused_by_name(field: dict[str, Any], told: str) -> None:
    with pytest.raises(SchemaError, match=told):
        Contract.parse(record([field]))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"key": "y"}, "no field"),
        ({"key": "n"}, "must not be nullable"),
        ({"key": "d"}, "an int, long or string"),
        ({"event_time": "l"}, "timestamp-millis"),
        ({"keys": "l"}, "must be an object of"),
        ({"generation": 0}, "whole number"),
        ("l", "must be an object"),
    ],
)
def test_wrong_roles_are_refused_by_name(said: Any, told: str) -> None:
    fields: list[dict[str, Any]] = [
        {"name": "l", "type": "long"},
        {"name": "d", "type": "double"},
        {"name": "n", "type": ["null", "long"]},
    ]
    with pytest.raises(SchemaError, match=told):
        Contract.parse({**record(fields), "millstream": said})
