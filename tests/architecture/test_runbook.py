"""Every alert points to a section of the runbook that is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from millstream.core.drift.alert import RUNBOOK, Kind

ROOT = Path(__file__).parents[2]


def test_every_kind_of_alert_has_its_section() -> None:
    for kind in get_args(Kind):
        page, _, anchor = RUNBOOK.format(kind=kind).partition("#")
        assert re.search(rf"^## {anchor}$", (ROOT / page).read_text(), re.MULTILINE), kind
