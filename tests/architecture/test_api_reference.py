"""`python3 infra/run.py docs` writes a page for each public module, with what `millstream.__all__` names."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import millstream

ROOT = Path(__file__).parents[2]


def test_the_reference_has_every_public_name(tmp_path: Path) -> None:
    script = ROOT / "infra" / "api_reference.py"
    subprocess.run([sys.executable, script, tmp_path], check=True, capture_output=True)
    found = set(re.findall(r'id="([\w.]+)"', (tmp_path / "millstream.html").read_text(encoding="utf-8")))
    assert {*millstream.__all__, "Project.replay"} <= found
    for name in runpy.run_path(str(script))["PUBLIC"]:
        assert (tmp_path / f"{name.replace('.', '/')}.html").is_file()
