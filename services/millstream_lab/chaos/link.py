"""TCP links that can be made bad, as a process of its own: ``python -m millstream_lab.chaos.link PORT...``.

Each PORT gets a port of ours that forwards to it; they are printed as JSON. Commands are lines of JSON on standard
input: ``{"link": 0, "mode": "slow", "delay_ms": 200}``. Modes: ``open``; ``cut`` (connections are closed and refused);
``slow`` (every piece waits); ``no-coordinator`` (a connection that asks a Kafka coordinator for anything is closed).
The answer to a command holds how often the mode before it did harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import sys
from typing import Any

HOST = "127.0.0.1"
# Kafka's protocol guide, "API keys": OffsetCommit, OffsetFetch, FindCoordinator, JoinGroup, Heartbeat, LeaveGroup,
# SyncGroup, InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn, EndTxn, TxnOffsetCommit.
COORDINATOR_APIS = frozenset({8, 9, 10, 11, 12, 13, 14, 22, 24, 25, 26, 28})
_PIECE = 65_536


class Link:
    """One port of ours and the one it forwards to."""

    def __init__(self, target: int) -> None:
        self.mode: dict[str, Any] = {"mode": "open"}
        self.harmed = 0
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()

    def set(self, mode: dict[str, Any]) -> int:
        """Change how it behaves from now on; return how many pieces or connections were harmed until now."""
        harmed, self.harmed = self.harmed, 0
        self.mode = mode
        if mode["mode"] == "cut":
            self.harmed = len(self._writers) // 2
            for writer in list(self._writers):
                writer.close()
        return harmed

    async def serve(self) -> int:
        """Listen; return the port."""
        server = await asyncio.start_server(self._connected, HOST, 0)
        return int(server.sockets[0].getsockname()[1])

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode["mode"] == "cut":
            self.harmed += 1
            writer.close()
            return
        try:
            upstream = await asyncio.open_connection(HOST, self._target)
        except OSError:
            writer.close()
            return
        ends = {writer, upstream[1]}
        self._writers |= ends
        pumps = [
            asyncio.create_task(self._pump(reader, upstream[1], requests=True)),
            asyncio.create_task(self._pump(upstream[0], writer, requests=False)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        for end in ends:
            end.close()
        self._writers -= ends

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, requests: bool) -> None:
        frames = _Frames() if requests else None
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while piece := await reader.read(_PIECE):
                if self.mode["mode"] == "slow":
                    self.harmed += 1
                    await asyncio.sleep(self.mode["delay_ms"] / 1000)
                if frames is not None:
                    asked = frames.apis(piece)
                    if self.mode["mode"] == "no-coordinator" and asked & COORDINATOR_APIS:
                        self.harmed += 1
                        return
                writer.write(piece)
                await writer.drain()


class _Frames:
    """Finds the API key of each request in a stream of length-prefixed frames."""

    def __init__(self) -> None:
        self._skip = 0
        self._head = b""

    def apis(self, piece: bytes) -> set[int]:
        """Return the API keys of the requests that begin in this piece."""
        found = set()
        at = 0
        while at < len(piece):
            if self._skip:
                step = min(self._skip, len(piece) - at)
                self._skip -= step
                at += step
                continue
            need = 6 - len(self._head)
            self._head += piece[at : at + need]
            at += need
            if len(self._head) == 6:
                size, api = struct.unpack(">ih", self._head)
                found.add(api)
                self._skip, self._head = max(0, size - 2), b""
        return found


async def _main(targets: list[int]) -> None:
    links = [Link(target) for target in targets]
    print(json.dumps([await link.serve() for link in links]), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        harmed = links[command["link"]].set(command)
        print(json.dumps({**command, "harmed": harmed}), flush=True)


if __name__ == "__main__":
    asyncio.run(_main([int(port) for port in sys.argv[1:]]))
