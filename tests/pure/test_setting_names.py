"""Settings that were renamed are still read under their former names."""

import pytest

from millstream.errors import Misconfigured
from millstream.settings import load_settings


def test_the_number_investigated_a_day_is_read_under_both_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings({}).quality_top_k == 100
    monkeypatch.setenv("MILLSTREAM_QUALITY_CARDS", "7")
    assert load_settings().quality_top_k == 7
    monkeypatch.setenv("MILLSTREAM_QUALITY_TOP_K", "8")
    assert load_settings().quality_top_k == 8
    assert load_settings({}, quality_top_k=9).quality_top_k == 9
    monkeypatch.setenv("MILLSTREAM_QUALITY_TOP_K", "0")
    with pytest.raises(Misconfigured, match="\n  MILLSTREAM_QUALITY_TOP_K: "):
        load_settings()
