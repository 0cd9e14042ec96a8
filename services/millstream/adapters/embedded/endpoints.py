"""Endpoints of Kafka and Redis: from the settings, else the embedded servers of the state directory.

The embedded servers' ports are chosen once and kept in ``{state_dir}/endpoints.json``.
"""

from __future__ import annotations

import fcntl
import json
import random
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from millstream.adapters.embedded.kafka import EmbeddedKafka
from millstream.adapters.embedded.server_process import PortTaken
from millstream.adapters.embedded.valkey import EmbeddedValkey
from millstream.adapters.kafka.client import check_settings
from millstream.adapters.kafka.cluster import Cluster
from millstream.adapters.kafka.topic_names import cluster_of
from millstream.core.urls import without_credentials
from millstream.errors import Misconfigured, Retry
from millstream.settings import Settings

BOOTSTRAP = "bootstrap.servers"
DATA = ("kafka", "valkey", "endpoints.json", "feast-registry.db", "demo/bookmark.json")
"""What this module and its servers keep in the state directory."""
_TRIES = 3
_PORTS = (20_000, 30_000)  # Linux gives out from 32768 on, other systems from 49152 (RFC 6335)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """How to reach both servers.

    Parameters
    ----------
    kafka : Cluster
        librdkafka settings common to all clients, secrets included, and the names of the topics.
    redis_url : str
        redis:// or rediss:// URL, password included.
    kafka_embedded, redis_embedded : bool
        True where it is the embedded server.
    """

    kafka: Cluster
    redis_url: str
    kafka_embedded: bool
    redis_embedded: bool


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One server as `status` sees it: ``pid`` is None when it is external or down."""

    name: str
    embedded: bool
    address: str
    pid: int | None


def start(settings: Settings, on_step: Callable[[str], None]) -> Endpoints:
    """Start what the settings do not name elsewhere, wait until it is healthy, and return both endpoints.

    Servers that run already are left alone. They outlive this process; `stop` ends them.

    Raises
    ------
    Misconfigured
        The settings contradict themselves.
    Stop, Retry
        A server does not come up: says why and shows the end of its log.
    """
    use_kafka, use_valkey = _embedded(settings)
    if use_kafka or use_valkey:
        directory = settings.state_dir.resolve()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(directory, on_step):
            if use_valkey:
                _start_onfree_ports(directory, "valkey", on_step)
            if use_kafka:
                _start_onfree_ports(directory, "kafka", on_step)
    return resolve(settings)


def stop(settings: Settings, on_step: Callable[[str], None] = lambda _step: None) -> list[str]:
    """Stop the embedded servers of the state directory, keeping their data; return the names of those that ran."""
    directory = settings.state_dir.resolve()
    if not directory.exists():
        return []
    with _alone(directory, on_step):
        stopped = []
        for name in ("kafka", "valkey"):
            server = _server(directory, name, {})
            if server.process.pid() is not None:
                on_step(f"stopping the {server.process.name}")
            if server.stop():
                stopped.append(server.process.name)
        return stopped


def wipe(settings: Settings) -> list[Path]:
    """Delete the stopped servers' data, and the Feast registry that describes it; return what was deleted."""
    doomed = [settings.state_dir / name for name in DATA if (settings.state_dir / name).exists()]
    for path in doomed:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return doomed


def resolve(settings: Settings, redis: bool = True) -> Endpoints:
    """Return both endpoints without starting anything.

    Parameters
    ----------
    redis : bool
        Whether Redis is needed. If it is not, its URL is empty where an embedded one does not run.

    Raises
    ------
    Misconfigured
        An endpoint is neither set nor was it ever started here; says to run ``millstream up``. Or a Kafka setting is
        wrong.
    Retry
        An embedded server that was started here before is down.
    """
    use_kafka, use_valkey = _embedded(settings)
    check_settings(settings.kafka, settings.transaction_timeout_ms if settings.guarantee == "exactly_once" else None)
    directory = settings.state_dir.resolve()
    ports = _read_ports(directory)
    down = [
        (name, variable)
        for name, used, variable in (
            ("kafka", use_kafka, "MILLSTREAM_KAFKA_BOOTSTRAP_SERVERS"),
            ("valkey", use_valkey and redis, "MILLSTREAM_REDIS_URL"),
        )
        if used and _server(directory, name, ports).process.pid() is None
    ]
    if down:
        names = " and ".join({"kafka": "Kafka", "valkey": "Valkey"}[name] for name, _variable in down)
        advice = f"run `millstream up`, or set {' and '.join(variable for _name, variable in down)}"
        # A server that was started here before may be started again; one that never was, does not appear.
        failure = Retry if all(name in ports for name, _variable in down) else Misconfigured
        raise failure(f"no {names} is running in {directory}: {advice}")
    kafka = EmbeddedKafka(directory / "kafka", *_pair(ports)).client_settings if use_kafka else {}
    valkey = _valkey(directory, ports)
    embedded = valkey.url if redis or valkey.process.pid() is not None else ""
    url = settings.redis_url.get_secret_value() if settings.redis_url else embedded
    cluster = cluster_of(settings, {**settings.kafka, **kafka})
    return Endpoints(cluster, url, kafka_embedded=use_kafka, redis_embedded=use_valkey)


def status(settings: Settings) -> tuple[ServerStatus, ServerStatus]:
    """Return what Kafka and Redis are, running or not; passwords are not shown."""
    use_kafka, use_valkey = _embedded(settings)
    directory = settings.state_dir.resolve()
    ports = _read_ports(directory)
    kafka, valkey = EmbeddedKafka(directory / "kafka", *_pair(ports)), _valkey(directory, ports)
    return (
        ServerStatus("Kafka", True, kafka.client_settings[BOOTSTRAP], kafka.process.pid())
        if use_kafka
        else ServerStatus("Kafka", False, settings.kafka[BOOTSTRAP], None),
        ServerStatus("Valkey", True, valkey.url, valkey.process.pid())
        if use_valkey
        else ServerStatus("Redis", False, _redis_shown(settings), None),
    )


def _redis_shown(settings: Settings) -> str:
    return without_credentials(settings.redis_url.get_secret_value()) if settings.redis_url else ""


def _embedded(settings: Settings) -> tuple[bool, bool]:
    """Return which of Kafka and Redis the settings leave to the embedded servers."""
    use_kafka = not settings.kafka.get(BOOTSTRAP)
    secured = sorted(key for key in settings.kafka if key.startswith(("sasl.", "ssl.", "security.")))
    if use_kafka and secured:
        names = ", ".join("MILLSTREAM_KAFKA_" + key.upper().replace(".", "_") for key in secured)
        raise Misconfigured(
            f"{names}: set, but MILLSTREAM_KAFKA_BOOTSTRAP_SERVERS is not; name the brokers they are for"
        )
    return use_kafka, settings.redis_url is None


def _pair(ports: Mapping[str, list[int]]) -> tuple[int, int]:
    broker, controller = ports.get("kafka", [0, 0])
    return broker, controller


def _valkey(directory: Path, ports: Mapping[str, list[int]]) -> EmbeddedValkey:
    return EmbeddedValkey(directory / "valkey", ports.get("valkey", [0])[0])


def _server(directory: Path, name: str, ports: Mapping[str, list[int]]) -> EmbeddedKafka | EmbeddedValkey:
    return EmbeddedKafka(directory / "kafka", *_pair(ports)) if name == "kafka" else _valkey(directory, ports)


def _start_onfree_ports(directory: Path, name: str, on_step: Callable[[str], None]) -> None:
    for attempt in range(_TRIES):
        ports = _read_ports(directory)
        server = _server(directory, name, ports)
        if server.process.pid() is None:
            kept = ports.get(name)
            if kept is None or attempt or not all(map(_is_free, kept)):
                if kept is not None:
                    on_step(
                        f"port {kept[0]} is taken by another program; choosing another for the {server.process.name}"
                    )
                ports[name] = free_ports(2 if name == "kafka" else 1)
                _write_ports(directory, ports)
                server = _server(directory, name, ports)
        try:
            server.start(on_step)
        except PortTaken:
            if attempt + 1 == _TRIES:
                raise
        else:
            return


def _read_ports(directory: Path) -> dict[str, list[int]]:
    file = directory / "endpoints.json"
    if not file.exists():
        return {}
    try:
        read = json.loads(file.read_text())
        return {name: [int(port) for port in read[name]] for name in ("kafka", "valkey") if name in read}
    except (ValueError, TypeError) as error:
        raise Misconfigured(f"{file} is damaged ({error}); delete it and run `millstream up`") from error


def _write_ports(directory: Path, ports: Mapping[str, list[int]]) -> None:
    written = directory / "endpoints.json.new"
    written.write_text(json.dumps(ports) + "\n")
    written.replace(directory / "endpoints.json")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: a port whose last connections are in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Return distinct loopback ports that are free at the moment.

    None is among those that systems give to outgoing connections: such a connection may take the port while the server
    is down, and keep it from coming back.
    """
    found: set[int] = set()
    while len(found) < count:
        port = random.randrange(*_PORTS)
        if _is_free(port):
            found.add(port)
    return list(found)


@contextmanager
def _alone(directory: Path, on_step: Callable[[str], None]) -> Iterator[None]:
    """Let only one command at a time start or stop the servers of a state directory."""
    with (directory / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_step("another command is starting or stopping the servers; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
