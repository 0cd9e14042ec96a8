"""The drift report's page: where it cannot be written, that is said in a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from millstream.cli.drift.report import _write, report
from millstream.errors import Misconfigured


def test_a_page_that_cannot_be_written_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="there is no directory"):
        report(out=tmp_path / "missing" / "d.html", last=100)
    with pytest.raises(Misconfigured, match="cannot be written"):
        _write(tmp_path, "<html>")
