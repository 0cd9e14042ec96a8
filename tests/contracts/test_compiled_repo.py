"""The compiled feature repo is kept and taken again while nothing it depends on has changed, and only then."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from millstream.adapters.feast import compiled_repo as module
from millstream.adapters.feast.compiled_repo import compiled_repo, forget
from millstream.adapters.feast.repo import load_declaration
from millstream.settings import Settings, load_settings

REPO = load_settings({}).feature_repo


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    shutil.copytree(REPO, tmp_path / "repo", ignore=shutil.ignore_patterns("__pycache__"))
    return load_settings({}, feature_repo=tmp_path / "repo", state_dir=tmp_path / "state")


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Who had the repo compiled."""
    seen: list[Settings] = []

    def counted(settings: Settings) -> object:
        seen.append(settings)
        return load_declaration(settings)

    monkeypatch.setattr(module, "load_declaration", counted)
    return seen


def change(settings: Settings, before: str, after: str) -> None:
    file = settings.feature_repo / "definitions.py"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def test_what_is_kept_equals_what_was_compiled(settings: Settings, compilations: list[Settings]) -> None:
    first, second = compiled_repo(settings), compiled_repo(settings)
    assert len(compilations) == 1
    assert second.alike == first.alike == first.declaration.views
    assert second.declaration.views == first.declaration.views
    assert second.declaration.service == first.declaration.service
    (before,), (after,) = first.declaration.on_demand, second.declaration.on_demand
    assert (after.name, after.inputs, after.outputs) == (before.name, before.inputs, before.outputs)
    asked = {"amount": [1.0, 2.0], "event_time_ms": [1_533_340_799_999, 1_533_340_800_000]}
    assert after.compute(asked) == before.compute(asked) != {}


def test_a_worker_starts_without_feast(settings: Settings) -> None:
    compiled_repo(settings)
    program = (
        "import sys; from millstream.app.assembly import assemble; from millstream.settings import load_settings;"
        "from millstream.adapters.redis.view_writer import open_online_view;"
        "assembly = assemble(load_settings());"
        "open_online_view(assembly.settings, assembly.declaration, 'redis://127.0.0.1:1').close();"
        "print({'feast', 'pandas', 'pyarrow'} & set(sys.modules))"
    )
    environment = {
        "PATH": "/usr/bin:/bin",
        "MILLSTREAM_FEATURE_REPO": str(settings.feature_repo),
        "MILLSTREAM_STATE_DIR": str(settings.state_dir),
    }
    asked = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert asked.stdout == "set()\n"


def test_a_change_of_the_repo_is_seen(settings: Settings, compilations: list[Settings]) -> None:
    compiled_repo(settings)
    change(settings, "amount > 220", "amount > 330")
    assert "330" in compiled_repo(settings).declaration.service.baseline
    (settings.feature_repo / "more.py").write_text("'''Nothing yet.'''\n")
    compiled_repo(settings)
    assert len(compilations) == 3


def test_a_change_of_a_variable_that_definitions_read_is_seen(
    settings: Settings, compilations: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(settings, '"baseline": "', '"baseline": os.environ.get("LIMIT", "") + "')
    for value, compiled in ((None, 1), (None, 1), ("0 + ", 2), ("0 + ", 2), ("1 + ", 3), (None, 4)):
        if value is None:
            monkeypatch.delenv("LIMIT", raising=False)
        else:
            monkeypatch.setenv("LIMIT", value)
        monkeypatch.setenv("READ_BY_NOBODY", str(compiled))
        assert compiled_repo(settings).declaration.service.baseline.startswith(value or "CASE")
        assert len(compilations) == compiled


def test_another_package_or_a_spoiled_file_has_it_compiled_anew(
    settings: Settings, compilations: list[Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = compiled_repo(settings)
    (file,) = settings.state_dir.iterdir()
    content = file.read_bytes()
    for spoiled in (b"", content[:40], content[:-1], content[:-1] + bytes([content[-1] ^ 1])):
        file.write_bytes(spoiled)
        assert compiled_repo(settings).declaration.views == found.declaration.views
    assert len(compilations) == 5
    (tmp_path / "acme_features-2.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    compiled_repo(settings)
    assert len(compilations) == 6
    forget(settings)
    compiled_repo(settings)
    assert len(compilations) == 7


def test_a_transform_that_needs_a_module_of_the_repo_is_compiled_at_every_start(
    settings: Settings, compilations: list[Settings], caplog: pytest.LogCaptureFixture
) -> None:
    (settings.feature_repo / "of_the_team.py").write_text("def doubled(values):\n    return [2 * v for v in values]\n")
    change(settings, "from datetime import timedelta", "import of_the_team\nfrom datetime import timedelta")
    change(settings, '"paid_amount": inputs["amount"]', '"paid_amount": of_the_team.doubled(inputs["amount"])')
    caplog.set_level("INFO")
    for _ in range(2):
        (context,) = compiled_repo(settings).declaration.on_demand
        assert context.compute({"amount": [1.5], "event_time_ms": [0]})["paid_amount"] == [3.0]
    assert len(compilations) == 2
    assert "every start compiles it" in caplog.text
