"""``millstream doctor``: each thing that can be wrong is told in words a person can act on."""

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
import typer
from pydantic import SecretStr
from typer.testing import CliRunner

from millstream.adapters.embedded import endpoints
from millstream.adapters.embedded.endpoints import Endpoints
from millstream.adapters.telemetry.probes import Finding, probe_kafka, probe_redis, probe_registry
from millstream.cli import doctor, stack
from millstream.settings import Settings
from repos import VIEW, repo


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    doctor.register(made)
    stack.register(made)
    return made


def worst(findings: list[Finding]) -> Finding:
    return max(findings, key=lambda finding: ("ok", "warn", "fail").index(finding.level))


def test_exit_code_and_json_follow_the_findings(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Finding("One", "ok", "fine"), Finding("Two", "warn", "hm [bracketed]", "look")]
    monkeypatch.setattr(doctor, "checks", lambda _settings: iter([("all", lambda: found)]))
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["findings"][1] == {
        "check": "Two",
        "level": "warn",
        "found": "hm [bracketed]",
        "advice": "look",
    }
    assert "Ready." not in CliRunner().invoke(app, ["doctor"]).stdout, "something is left to do"
    found.append(Finding("Three", "fail", "broken", "mend it"))
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    for text in ("warn", "hm [bracketed]", "fail", "mend it"):
        assert text in result.stdout


def test_external_servers_need_no_java_and_no_valkey(tmp_path: Path) -> None:
    own = [name for name, _check in doctor.checks(Settings(state_dir=tmp_path))]
    external = Settings(state_dir=tmp_path, kafka={"bootstrap.servers": "h:1"}, redis_url="redis://h:1")
    theirs = [name for name, _check in doctor.checks(external)]
    assert set(own) - set(theirs) == {"Java", "Kafka's jars", "Valkey's binary"}


def test_this_machine_is_fit() -> None:
    for check in (doctor.check_python, doctor.check_packages, doctor.check_java, doctor.check_valkey_binary):
        assert worst(check()).level == "ok"


def test_servers_that_are_down_say_how_to_start_them(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    kafka, valkey = endpoints.status(settings)
    for finding in (*doctor.check_kafka(settings, kafka), *doctor.check_redis(settings, valkey)):
        assert finding.level == "warn"
        assert "millstream up" in finding.advice


def test_a_state_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    finding = worst(doctor.check_state(Settings(state_dir=tmp_path / "file" / "state")))
    assert finding.level == "fail"
    assert "MILLSTREAM_STATE_DIR" in finding.advice


def test_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    for free_mib, level in ((500, "fail"), (3000, "warn"), (50_000, "ok")):
        monkeypatch.setattr("shutil.disk_usage", lambda _path, free=free_mib: Usage(free * 2**20))
        assert worst(doctor.check_state(Settings(state_dir=tmp_path))).level == level


def test_uncached_jars_are_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    finding = worst(doctor.check_jars(Settings(state_dir=tmp_path)))
    assert finding.level == "warn"
    assert "fetches them" in finding.advice


def test_a_broken_contract_is_named(tmp_path: Path) -> None:
    (tmp_path / "orders.avsc").write_text("{")
    finding = worst(doctor.check_contracts(Settings(schemas_dir=tmp_path)))
    assert finding.level == "fail"
    assert "orders.avsc" in finding.found


@pytest.mark.kafka
def test_a_healthy_kafka(kafka: Endpoints, tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    assert [finding.level for finding in probe_kafka(settings, kafka.kafka)] == ["ok"]


@pytest.mark.kafka
def test_what_kafka_cannot_do_is_told_beforehand(kafka: Endpoints) -> None:
    settings = Settings(replication=3, transaction_timeout_ms=10_000_000)
    told = {finding.found: finding for finding in probe_kafka(settings, kafka.kafka) if finding.level == "fail"}
    assert len(told) == 2
    assert any("MILLSTREAM_REPLICATION is 3, with 1 broker up" in found for found in told)
    assert any("MILLSTREAM_TRANSACTION_TIMEOUT_MS" in finding.advice for finding in told.values())


@pytest.mark.kafka
def test_tls_to_a_plain_listener_is_explained(kafka: Endpoints) -> None:
    finding = worst(probe_kafka(Settings(), {**kafka.kafka, "security.protocol": "ssl"}))
    assert finding.level == "fail"
    assert "TLS failed" in finding.advice


def test_an_unknown_host_and_a_wrong_setting_are_explained() -> None:
    finding = worst(probe_kafka(Settings(), {"bootstrap.servers": "no-such-host.invalid:9092"}))
    assert "host name is unknown" in finding.advice
    finding = worst(probe_kafka(Settings(), {"bootstrap.servers": "127.0.0.1:1", "no.such": "1"}))
    assert "no librdkafka setting" in finding.advice
    assert "no.such" in finding.found


def test_passwords_without_tls_are_warned_of_unless_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("millstream.adapters.telemetry.probes._PATIENCE_S", 0.0)
    sasl = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanisms": "PLAIN",
        "sasl.username": "u",
        "sasl.password": "p",
    }
    remote = probe_kafka(Settings(), {**sasl, "bootstrap.servers": "no-such-host.invalid:1"})
    assert "unencrypted" in remote[0].found
    local = probe_kafka(Settings(), {**sasl, "bootstrap.servers": "127.0.0.1:1"})
    assert [finding.check for finding in local] == ["Kafka"]
    assert "unencrypted" in probe_redis("redis://:p@no-such-host.invalid:1")[0].found
    assert [finding.level for finding in probe_redis("redis://:p@127.0.0.1:1")] == ["fail"]


@pytest.mark.redis
def test_redis_healthy_refusing_and_evicting(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, kafka={"bootstrap.servers": "127.0.0.1:1"})
    url = endpoints.start(settings, print).redis_url
    try:
        healthy = probe_redis(url)
        assert [finding.level for finding in healthy] == ["ok"]
        assert "Valkey 9" in healthy[0].found
        with redis.Redis.from_url(url) as client:
            client.config_set("maxmemory", "64mb")
            client.config_set("maxmemory-policy", "allkeys-lru")
            evicting = worst(probe_redis(url))
            assert evicting.level == "warn"
            assert "noeviction" in evicting.advice
            client.config_set("requirepass", "secret")
        refused = worst(probe_redis(url))
        assert "refuses the credentials" in refused.found
        assert "MILLSTREAM_REDIS_URL" in refused.advice
        wrong = worst(probe_redis(url.replace("redis://", "redis://:wrong@")))
        assert "refuses the credentials" in wrong.found
        assert "wrong" not in wrong.found.partition("refuses")[0]
    finally:
        endpoints.stop(settings)


def test_no_redis_url_at_all() -> None:
    assert "rediss://" in worst(probe_redis("http://host:1")).advice


class Registry(BaseHTTPRequestHandler):
    """Answers ``/subjects`` for one user."""

    def do_GET(self) -> None:
        allowed = self.headers.get("Authorization") == "Basic bWU6c2VjcmV0"
        self.send_response(200 if allowed and self.path == "/subjects" else 401)
        self.end_headers()
        self.wfile.write(b'["a-value", "b-value"]')

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Registry) as server:
        thread = threading.Thread(target=socketserver.BaseServer.serve_forever, args=(server, 0.01))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_schema_registry_found_refusing_and_gone(registry: str) -> None:
    found = worst(probe_registry(Settings(schema_registry_url=registry, schema_registry_user_info="me:secret")))
    assert (found.level, found.found) == ("ok", f"{registry}: 2 subjects")
    refused = worst(probe_registry(Settings(schema_registry_url=registry)))
    assert refused.level == "fail"
    assert "USER_INFO" in refused.advice
    gone = worst(probe_registry(Settings(schema_registry_url="http://127.0.0.1:1")))
    assert "does not answer" in gone.found
    assert worst(probe_registry(Settings())).level == "ok"


@pytest.mark.redis
def test_up_and_down_in_words(app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLSTREAM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("MILLSTREAM_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    up = CliRunner().invoke(app, ["up", "--json"])
    shown = json.loads(up.stdout)
    assert shown["kafka"] == {"address": "127.0.0.1:1", "embedded": False}
    assert shown["valkey"]["embedded"]
    refused = CliRunner().invoke(app, ["down", "--wipe"], input="n\n")
    assert refused.exit_code == 1
    assert (tmp_path / "state" / "valkey").exists()
    (tmp_path / "state" / "models").mkdir()
    down = CliRunner().invoke(app, ["down", "--wipe", "--yes"])
    assert "stopped the embedded Valkey" in down.stdout
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["lock", "models"]
    assert "Nothing was running" in CliRunner().invoke(app, ["down"]).stdout


@pytest.mark.parametrize("online", [True, False])
def test_redis_is_missed_where_a_view_is_online_only(tmp_path: Path, online: bool) -> None:
    settings = repo(tmp_path, view=VIEW.replace("ttl=", f"online={online}, ttl="))
    _, server = endpoints.status(settings)
    (found,) = doctor.if_needed(settings, doctor.check_redis(settings, server))
    assert (found.level, "not needed" in found.found) == (("warn", False) if online else ("ok", True))
    away = settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")})
    _, server = endpoints.status(away)
    findings = doctor.if_needed(away, doctor.check_redis(away, server))
    assert any(each.level == "fail" for each in findings) == online


def test_redis_is_missed_where_the_repo_cannot_be_compiled(tmp_path: Path) -> None:
    settings = Settings(feature_repo=tmp_path, state_dir=tmp_path)
    _, server = endpoints.status(settings)
    (found,) = doctor.if_needed(settings, doctor.check_redis(settings, server))
    assert found.level == "warn"
