"""The guide lists every Kafka setting that the engine decides, with the values that are accepted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from millstream.errors import Misconfigured
from millstream.settings import DECIDED, load_settings

PAGE = Path(__file__).parents[2] / "infra" / "docs" / "cluster.md"
ROW = re.compile(r"^\| (`[a-z.]+`(?:, `[a-z.]+`)*) \| (.*) \|$", re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")


def _documented() -> dict[str, tuple[str, ...]]:
    found = {}
    for names, accepted in ROW.findall(PAGE.read_text()):
        values = () if accepted.startswith("none") else tuple(CODE.findall(accepted))
        found |= dict.fromkeys(CODE.findall(names), values)
    return found


def test_the_guide_has_the_settings_that_the_engine_decides() -> None:
    assert _documented() == DECIDED


@pytest.mark.parametrize("name", sorted(DECIDED))
def test_another_value_is_refused_and_the_engine_s_own_accepted(name: str) -> None:
    variable = "MILLSTREAM_KAFKA_" + name.upper().replace(".", "_")
    with pytest.raises(Misconfigured, match=f"{variable}: the engine itself decides {re.escape(name)}"):
        load_settings({variable: "other"})
    for value in DECIDED[name]:
        assert load_settings({variable: value}).kafka == {name: value}
