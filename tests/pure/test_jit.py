"""Cached machine code must not outlive what it was compiled from."""

import os
import subprocess
import sys
from pathlib import Path

HELPER = """
from millstream.core.jit import fused
@fused
def helper(x):
    return x + {plus}
"""
KERNEL = """
from millstream.core.jit import kernel
from helper import helper
@kernel
def run(x):
    return 2 * helper(x)
print(run(1), len(run.stats.cache_hits))
"""


def test_a_helper_changed_in_another_file_is_compiled_anew(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"  # Python's own cache tells versions of one second apart by size only

    def ran() -> list[int]:
        command = [sys.executable, str(tmp_path / "main.py")]
        return [int(word) for word in subprocess.check_output(command, env=environment, text=True).split()]

    (tmp_path / "main.py").write_text(KERNEL)
    (tmp_path / "helper.py").write_text(HELPER.format(plus=1))
    assert ran() == [4, 0]
    assert ran() == [4, 1]
    (tmp_path / "helper.py").write_text(HELPER.format(plus=10))
    assert ran() == [22, 0]
