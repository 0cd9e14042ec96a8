"""The wheel in an environment of its own, outside the checkout: `new`, `features show`, `replay`, the project's tests.

Its other packages are those of this environment. Kernels are interpreted: compiling them takes longer than the rest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def run(*command: str | Path, cwd: Path, **environ: str) -> str:
    """Run a command, in an environment without anything of the developer's, and return what it prints."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("MILLSTREAM_", "PYTHON", "VIRTUAL"))
    }
    done = subprocess.run(
        [str(each) for each in command], cwd=cwd, env={**kept, **environ}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment into which the wheel is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist", cwd=ROOT)
    (wheel,) = (folder / "dist").glob("*.whl")
    run(BIN / "uv", "venv", "--offline", "--python", sys.executable, "fresh", cwd=folder)
    commands = folder / "fresh" / BIN.name
    run(BIN / "uv", "pip", "install", "--offline", "--no-deps", "--python", commands / "python", wheel, cwd=folder)
    packages = sysconfig.get_path("purelib", vars={"base": str(folder / "fresh")})
    # This path is searched after the environment's own packages; .pth files there, as the checkout's, are not read.
    (Path(packages) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return commands


def test_a_project_of_one_s_own_from_the_wheel_alone(installed: Path, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "NUMBA_DISABLE_JIT": "1", "COLUMNS": "200"}
    millstream, python = installed / "millstream", installed / "python"
    where = run(python, "-c", "import millstream; print(millstream.__file__)", cwd=tmp_path, **home)
    assert Path(where).is_relative_to(installed.parent)
    assert "cd mine" in run(millstream, "new", "mine", "--template", "blank", cwd=tmp_path, **home)
    mine = tmp_path / "mine"
    assert "3 passed" in run(python, "-m", "pytest", "-q", cwd=mine, **home)
    shown = run(millstream, "features", "show", cwd=mine / "tests", **home)
    assert "mine: features from topic events" in shown
    assert "mean of value over 1:00:00" in shown
    run(millstream, "replay", "events.csv", "--out", "out", "--model", "none", cwd=mine, **home)
    scored = pl.read_parquet(mine / "out" / "scored.parquet")
    assert scored["device_activity__mean_value_1h"].to_list() == [10.0, 15.0, 7.0, 40.0, 30.0]
    assert scored["decision"].to_list() == ["accept", "accept", "accept", "review", "accept"]


def test_the_wheel_has_the_reference_repo_as_a_template(installed: Path, tmp_path: Path) -> None:
    run(installed / "millstream", "new", "mine", cwd=tmp_path)
    for name in ("feature_repo/definitions.py", "feature_repo/.feastignore", "schemas/transactions.avsc"):
        assert (tmp_path / "mine" / name).read_bytes() == (ROOT / name).read_bytes()


def test_the_wheel_holds_the_engine_and_the_lab_and_nothing_else(installed: Path, tmp_path: Path) -> None:
    (wheel,) = (installed.parents[1] / "dist").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    roots = {name.partition("/")[0] for name in names}
    assert {root for root in roots if not root.endswith(".dist-info")} == {"millstream", "millstream_lab"}
    contracts = {f"millstream/_schemas/{each.name}" for each in (ROOT / "schemas").glob("*.avsc")}
    assert contracts <= names
    assert {"millstream_lab/bench/feature_repo/definitions.py", "millstream_lab/py.typed"} <= names
    commands = run(installed / "millstream", "--help", cwd=tmp_path)
    assert all(f" {each} " in commands for each in ("demo", "bench", "chaos", "evaluate", "simulate"))
