"""The embedded servers: data outlives a restart, nobody else's process or port is touched."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest
import redis
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from pydantic import SecretStr

from millstream.adapters.embedded import endpoints, kafka_jars
from millstream.adapters.embedded.server_process import PortTaken, ServerProcess, start_mark, tail
from millstream.adapters.kafka import client as kafka_client
from millstream.adapters.telemetry.logs import secrets_of
from millstream.adapters.telemetry.probes import probe_redis
from millstream.errors import Misconfigured, Retry, Stop
from millstream.settings import Settings, load_settings

NO_KAFKA = {"bootstrap.servers": "127.0.0.1:1"}


def valkey_only(state_dir: Path) -> Settings:
    """Settings under which only Valkey is embedded, which starts in a tenth of a second."""
    return Settings(state_dir=state_dir, kafka=NO_KAFKA)


@pytest.mark.kafka
@pytest.mark.redis
def test_up_write_down_up_keeps_data(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "state")
    steps: list[str] = []
    try:
        first = endpoints.start(settings, steps.append)
        assert endpoints.start(settings, steps.append) == first
        with redis.Redis.from_url(first.redis_url) as client:
            client.set("kept", "yes")
        admin = AdminClient(first.kafka)
        admin.create_topics([NewTopic("kept", num_partitions=1)])["kept"].result(20)
        producer = Producer(first.kafka)
        producer.produce("kept", b"value", timestamp=1_500_000_000_000)
        assert producer.flush(20) == 0

        assert endpoints.stop(settings) == ["embedded Kafka", "embedded Valkey"]
        assert endpoints.stop(settings) == []
        with pytest.raises(Retry, match="millstream up"):
            endpoints.resolve(settings)

        again = endpoints.start(settings, steps.append)
        assert again == first
        assert again == endpoints.resolve(settings)
        assert sum("formatting" in step for step in steps) == 1
        with redis.Redis.from_url(again.redis_url) as client:
            assert client.get("kept") == b"yes"
        consumer = Consumer({**again.kafka, "group.id": "g", "auto.offset.reset": "error"})
        consumer.assign([TopicPartition("kept", 0, 0)])
        message = consumer.poll(20)
        consumer.close()
        assert message is not None
        assert message.value() == b"value"
    finally:
        endpoints.stop(settings)


@pytest.mark.redis
def test_a_killed_server_is_started_again_with_its_data(tmp_path: Path) -> None:
    settings = valkey_only(tmp_path)
    try:
        with redis.Redis.from_url(endpoints.start(settings, print).redis_url) as client:
            client.set("kept", "yes")
        pid = endpoints.status(settings)[1].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with redis.Redis.from_url(endpoints.start(settings, print).redis_url) as client:
            assert client.get("kept") == b"yes"
        assert endpoints.status(settings)[1].pid != pid
    finally:
        endpoints.stop(settings)


@pytest.mark.redis
def test_a_taken_port_is_chosen_anew_and_said(tmp_path: Path) -> None:
    settings, steps = valkey_only(tmp_path), list[str]()
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        taken = squatter.getsockname()[1]
        (tmp_path / "endpoints.json").write_text(json.dumps({"valkey": [taken]}))
        try:
            started = endpoints.start(settings, steps.append)
            assert not started.redis_url.endswith(f":{taken}/0")
            assert f"port {taken} is taken" in steps[0]
            assert endpoints.resolve(settings) == started
        finally:
            endpoints.stop(settings)


@pytest.mark.redis
def test_two_starts_at_once_make_one_server(tmp_path: Path) -> None:
    settings, started, steps = valkey_only(tmp_path), list[endpoints.Endpoints](), list[str]()
    threads = [
        threading.Thread(target=lambda: started.append(endpoints.start(settings, steps.append))) for _ in range(4)
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(started) == 4
        assert len(set(map(repr, started))) == 1
        assert sum("starting Valkey" in step for step in steps) == 1
    finally:
        endpoints.stop(settings)


@pytest.mark.redis
def test_a_server_outlives_its_starter_and_its_terminal_signals(tmp_path: Path) -> None:
    program = (
        "import os; from millstream.adapters.embedded import endpoints; from millstream.settings import Settings\n"
        f"endpoints.start(Settings(state_dir={str(tmp_path)!r}, kafka={NO_KAFKA!r}), lambda step: None)\n"
        "print(os.getsid(0), os.getpgid(0))"
    )
    starter = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True)
    session, group = map(int, starter.stdout.split())
    settings = valkey_only(tmp_path)
    try:
        pid = endpoints.status(settings)[1].pid
        assert pid is not None
        assert os.getsid(pid) != session
        assert os.getpgid(pid) != group
    finally:
        assert endpoints.stop(settings) == ["embedded Valkey"]
    assert start_mark(pid) is None


def test_a_pid_that_the_system_gave_to_another_process_is_left_alone(tmp_path: Path) -> None:
    process = ServerProcess("test server", tmp_path, ())
    with subprocess.Popen(["sleep", "60"]) as bystander:
        try:
            process.pid_file.write_text(json.dumps({"pid": bystander.pid, "started": "at another time"}))
            assert process.pid() is None
            assert not process.stop(1.0)
            assert bystander.poll() is None
            assert not process.pid_file.exists()

            process.pid_file.write_text(json.dumps({"pid": bystander.pid, "started": start_mark(bystander.pid)}))
            assert process.pid() == bystander.pid
        finally:
            bystander.kill()
            bystander.wait()
    assert process.pid() is None


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"pid": "x", "started": "y"}', '{"pid": 1}'])
def test_a_damaged_pid_file_names_no_process(tmp_path: Path, damage: str) -> None:
    process = ServerProcess("test server", tmp_path, ())
    process.pid_file.write_text(damage)
    assert process.pid() is None


def test_a_server_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    process = ServerProcess("test server", tmp_path, (log,))
    pid = process.spawn(["/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"], log)
    while "up" not in tail(log):
        pass
    assert process.stop(0.3)
    assert start_mark(pid) is None


def test_a_failure_shows_the_end_of_the_log_and_recognises_a_taken_port(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    process = ServerProcess("test server", tmp_path, (log,))
    log.write_text("".join(f"line {i}\n" for i in range(50)))
    failure = process.failure("ended while starting")
    assert type(failure) is Stop
    assert "line 49" in str(failure)
    assert "line 30" not in str(failure)
    log.write_text("bind: Address already in use\n" + log.read_text())
    assert type(process.failure("ended while starting")) is PortTaken


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECURITY_PROTOCOL", "nonsense"),
        ("LINGER_MS", "soon"),
        ("NO_SUCH", "1"),
        ("RETRIES", "0"),
        ("MAX_IN_FLIGHT", "9"),
        ("DELIVERY_TIMEOUT_MS", "600000"),
        ("MAX_POLL_INTERVAL_MS", "100"),
    ],
)
def test_a_kafka_setting_that_is_none_is_named(tmp_path: Path, name: str, value: str) -> None:
    environ = {"MILLSTREAM_KAFKA_BOOTSTRAP_SERVERS": "broker.example:9093", f"MILLSTREAM_KAFKA_{name}": value}
    settings = load_settings(environ, state_dir=tmp_path / "never", redis_url="redis://cache.example:6380/0")
    with pytest.raises(Misconfigured, match=f"MILLSTREAM_KAFKA_{name}: "):
        endpoints.resolve(settings)


def test_a_delivery_timeout_beyond_a_transaction_s_is_allowed_at_least_once(tmp_path: Path) -> None:
    environ = {
        "MILLSTREAM_KAFKA_BOOTSTRAP_SERVERS": "broker.example:9093",
        "MILLSTREAM_KAFKA_DELIVERY_TIMEOUT_MS": "60000",
    }
    url = "redis://cache.example:6380/0"
    endpoints.resolve(load_settings(environ, state_dir=tmp_path, redis_url=url, guarantee="at_least_once"))
    with pytest.raises(Misconfigured, match="MILLSTREAM_KAFKA_DELIVERY_TIMEOUT_MS"):
        endpoints.resolve(load_settings(environ, state_dir=tmp_path, redis_url=url))


def test_a_request_without_an_answer_fails_as_one_that_timed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_client, "_ANSWER_S", 0.0)
    with pytest.raises(KafkaException) as failed:
        kafka_client.result_of(Future(), 0.01)
    assert isinstance(kafka_client.error_for(failed.value.args[0], "asking"), Retry)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunt#er/2@127.0.0.1:1/0",
        "redis://:pass[word@127.0.0.1:1/0",
        "redis://:hunt/er@127.0.0.1:1/0",
        "redis://:hunt?er@127.0.0.1:1/0",
        "redis://:12/er@127.0.0.1:1/0",
        "redis://:hunt er@127.0.0.1:1/0",
        "redis://:hunter@:1/0",
        "redis://127.0.0.1:1/0?password=hunt#er",
        "redis://",
    ],
)
def test_a_password_that_must_be_percent_encoded_is_explained_and_not_shown(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLSTREAM_REDIS_URL", url)
    with pytest.raises(Misconfigured, match=r"MILLSTREAM_REDIS_URL: is no valid URL.*percent-encode") as refused:
        load_settings()
    assert not [part for part in ("hunt", "[word", "er@", "12") if part in str(refused.value)]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:1/0?password=hunter2", "redis://127.0.0.1:1/0"),
        ("unix:///run/no.sock?db=0&username=app&password=hunter2", "unix:///run/no.sock?db=0"),
        ("redis://app:hunter2@127.0.0.1:1/0", "redis://127.0.0.1:1/0"),
    ],
)
def test_no_password_is_on_the_screen(url: str, shown: str, tmp_path: Path) -> None:
    settings = load_settings({"MILLSTREAM_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, state_dir=tmp_path, redis_url=url)
    assert endpoints.status(settings)[1].address == shown
    assert "hunter2" in secrets_of(settings)
    assert not [finding for finding in probe_redis(url) if "hunter2" in f"{finding.found}{finding.advice}"]


@pytest.mark.parametrize("name", ["REDIS_URL", "SCHEMA_REGISTRY_URL"])
def test_an_address_that_is_none_is_named_and_not_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"MILLSTREAM_{name}", "ftp://alice:secret@example")
    with pytest.raises(Misconfigured, match=f"MILLSTREAM_{name}: .*://") as refused:
        load_settings()
    assert "secret" not in str(refused.value)


def test_endpoints_of_the_settings_are_used_and_nothing_is_started(tmp_path: Path) -> None:
    environ = {
        "MILLSTREAM_KAFKA_BOOTSTRAP_SERVERS": "broker.example:9093",
        "MILLSTREAM_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "MILLSTREAM_KAFKA_SASL_MECHANISMS": "PLAIN",
        "MILLSTREAM_KAFKA_SASL_USERNAME": "alice",
        "MILLSTREAM_KAFKA_SASL_PASSWORD": "secret",
    }
    url = "rediss://user:secret@cache.example:6380/0"
    settings = load_settings(environ, state_dir=tmp_path / "never", redis_url=url)
    resolved = endpoints.start(settings, pytest.fail)
    assert resolved == endpoints.Endpoints(
        {
            "bootstrap.servers": "broker.example:9093",
            "security.protocol": "SASL_SSL",
            "sasl.mechanisms": "PLAIN",
            "sasl.username": "alice",
            "sasl.password": "secret",
        },
        url,
        kafka_embedded=False,
        redis_embedded=False,
    )
    assert not (tmp_path / "never").exists()
    shown = endpoints.status(settings)
    assert [server.address for server in shown] == ["broker.example:9093", "rediss://cache.example:6380/0"]
    assert endpoints.stop(settings) == []


def test_credentials_without_brokers_are_refused_by_name(tmp_path: Path) -> None:
    settings = load_settings({"MILLSTREAM_KAFKA_SASL_USERNAME": "me"}, state_dir=tmp_path)
    with pytest.raises(Misconfigured, match=r"MILLSTREAM_KAFKA_SASL_USERNAME.*BOOTSTRAP_SERVERS"):
        endpoints.resolve(settings)


def test_what_is_not_running_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"no Kafka and Valkey is running.*KAFKA_BOOTSTRAP_SERVERS.*REDIS_URL"):
        endpoints.resolve(Settings(state_dir=tmp_path))
    with pytest.raises(Misconfigured, match=r"no Valkey is running.*set MILLSTREAM_REDIS_URL"):
        endpoints.resolve(valkey_only(tmp_path))
    (tmp_path / "endpoints.json").write_text('{"kafka": [20001, 20002], "valkey": [20003]}')
    with pytest.raises(Retry, match=r"no Kafka and Valkey is running.*`millstream up`"):
        endpoints.resolve(Settings(state_dir=tmp_path))


def test_redis_is_asked_for_where_it_is_needed_only(tmp_path: Path) -> None:
    settings = Settings(kafka={endpoints.BOOTSTRAP: "broker.example:9093"}, state_dir=tmp_path)
    with pytest.raises(Misconfigured, match="no Valkey is running"):
        endpoints.resolve(settings)
    assert endpoints.resolve(settings, redis=False).redis_url == ""
    with pytest.raises(Misconfigured, match="no Kafka is running"):
        endpoints.resolve(Settings(state_dir=tmp_path), redis=False)
    external = Settings(redis_url=SecretStr("redis://127.0.0.1:1/0"), kafka=settings.kafka, state_dir=tmp_path)
    assert endpoints.resolve(external, redis=False).redis_url == "redis://127.0.0.1:1/0"


def test_a_damaged_endpoints_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "endpoints.json").write_text("{")
    with pytest.raises(Misconfigured, match="delete it"):
        endpoints.resolve(Settings(state_dir=tmp_path))


def test_every_jar_is_locked_by_hash_and_no_name_twice() -> None:
    jars = kafka_jars.locked()
    assert len({jar.file_name for jar in jars}) == len(jars)
    assert all(len(bytes.fromhex(jar.sha256)) == 32 for jar in jars)
    versions = {jar.coordinate.split(":")[2] for jar in jars if jar.coordinate.startswith("org.apache.kafka:")}
    assert versions == {kafka_jars.kafka_version()}


def test_a_jar_with_other_content_counts_as_missing(tmp_path: Path) -> None:
    jar = kafka_jars.locked()[0]
    (tmp_path / jar.file_name).write_bytes(b"not the jar")
    assert jar in kafka_jars.missing(tmp_path)


def test_unreachable_jars_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".config").mkdir()
    (tmp_path / ".config" / "jgo.conf").write_text("[repositories]\ncentral = http://127.0.0.1:1\n")
    with pytest.raises(Retry, match="needed once, over the network"):
        kafka_jars.fetch(tmp_path, print)
    assert [path.name for path in tmp_path.iterdir()] == [".config"]


def test_a_read_only_cache_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert kafka_jars.cache_directory(tmp_path / "state").parent == tmp_path / "state"


def test_free_ports_are_distinct_and_none_that_an_outgoing_connection_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    linux = Path("/proc/sys/net/ipv4/ip_local_port_range")
    lowest = int(linux.read_text().split()[0]) if linux.exists() else 49_152
    found = endpoints.free_ports(50)
    assert len(set(found)) == 50
    assert max(found) < lowest
    drawn = iter([found[0], found[0], found[1]])
    monkeypatch.setattr("millstream.adapters.embedded.endpoints.random.randrange", lambda *_: next(drawn))
    with socket.create_server(("127.0.0.1", found[0])):
        assert endpoints.free_ports(1) == [found[1]]
