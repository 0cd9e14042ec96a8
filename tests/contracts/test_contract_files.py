"""The contracts that are shipped: complete, documented, and fit for the published history."""

from pathlib import Path

import numpy as np
import pytest

from millstream.adapters.files.contracts import load_all, load_contract, schemas_dir
from millstream.core.batch import Batch
from millstream.core.contracts import Contract
from millstream.errors import Misconfigured
from millstream.settings import Settings, load_settings

SETTINGS = load_settings({})
ALL = load_all(SETTINGS)


def test_every_topic_has_its_contract() -> None:
    assert {"transactions", "labels", "predictions", "dead-letters", "models", "scored"} <= set(ALL)


@pytest.mark.parametrize("topic", ALL)
def test_contracts_say_who_owns_them_what_they_mean_and_what_is_personal(topic: str) -> None:
    contract = ALL[topic]
    assert contract.owner
    assert contract.doc
    for item in contract.schema.fields:
        assert item.attributes.get("doc"), item.name
        assert item.attributes.get("pii"), item.name
        if item.name.endswith("_ms"):
            assert (item.attributes.get("unit"), item.logical_type) == ("ms", "timestamp-millis")


def test_history_published_years_later_is_welcome_but_the_future_is_not() -> None:
    contract = load_contract(SETTINGS, "transactions")
    now_ms = 1_780_000_000_000
    batch = Batch(
        3,
        {
            "transaction_id": np.array([0, 1, 2]),
            "customer_id": np.array([596, 4961, 2]),
            "terminal_id": np.array([3156, 3412, 1]),
            "event_time_ms": np.array([1_522_540_831_000, now_ms + 60_000, now_ms + 86_400_000]),
            "amount": np.array([57.16, 0.0, 1.0]),
        },
    )
    _, rejections = contract.validate(batch, np.full(3, now_ms), [b"596", b"4961", b"2"])
    assert [(r.row, r.field, r.reason) for r in rejections] == [(2, "event_time_ms", "from-the-future")]


def _settings(folder: Path) -> Settings:
    return load_settings({}, schemas_dir=folder)


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="MILLSTREAM_SCHEMAS_DIR"):
        schemas_dir(_settings(tmp_path / "nowhere"))
    with pytest.raises(Misconfigured, match="no contract"):
        load_all(_settings(tmp_path))
    (tmp_path / "a.avsc").write_text('{"type": "record", "name": "A", "fields": []}')
    with pytest.raises(Misconfigured, match=r"topic 'b' has no contract .*: a"):
        load_contract(_settings(tmp_path), "b")
    with pytest.raises(Misconfigured, match="events need key, event_id, event_time"):
        load_contract(_settings(tmp_path), "a")
    (tmp_path / "b.avsc").write_text('{"type": "record"}')
    with pytest.raises(Misconfigured, match=r"b\.avsc: schema has no name"):
        load_all(_settings(tmp_path))


def test_contracts_read_back_from_the_json_that_is_published() -> None:
    for contract in ALL.values():
        assert Contract.parse(contract.schema.to_json()) == contract
