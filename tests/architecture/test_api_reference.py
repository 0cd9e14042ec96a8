"""`python3 infra/run.py docs` writes a page for each public module, with what `millstream.__all__` names."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import millstream

ROOT = Path(__file__).parents[2]


def test_the_reference_has_every_public_name(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "infra" / "api_reference.py"))
    script["write"](tmp_path)
    found = set(re.findall(r'id="([\w.]+)"', (tmp_path / "millstream.html").read_text(encoding="utf-8")))
    assert {*millstream.__all__, "Project.replay"} <= found
    for name in script["PUBLIC"]:
        assert (tmp_path / f"{name.replace('.', '/')}.html").is_file()
