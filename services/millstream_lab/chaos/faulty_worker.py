"""``millstream run`` with fault injection: ``python -m millstream_lab.chaos.faulty_worker run ...``.

``MILLSTREAM_CHAOS_CRASH=point:n`` makes the process kill itself with SIGKILL when it comes by a point for the n-th
time; ``before-commit@topic`` is that point in the stage that reads the topic, at least once only.
``MILLSTREAM_CHAOS_CLOCK=file`` adds the seconds in that file to the process's wall clock, read again each time,
and writes every change that the process lived to see to ``file.seen``.
Without them it is the ordinary command. Nothing of the engine knows of this module.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from millstream.runtime.log.kafka_writer import KafkaWriter
from millstream.runtime.log.records import Output
from millstream.runtime.loop import StageLoop

CRASH = "MILLSTREAM_CHAOS_CRASH"
CLOCK = "MILLSTREAM_CHAOS_CLOCK"
POINTS = ("mid-batch", "after-produce", "before-commit", "after-commit", "in-checkpoint", "in-recovery", "in-rebalance")


class CrashPoint:
    """Counts passes of one point and kills the process at the n-th."""

    def __init__(self, armed: str) -> None:
        self._point, _, number = armed.partition(":")
        self._left = int(number)

    def passing(self, point: str) -> None:
        """Count a pass of a point, or of ``point@topic``."""
        if self._point in {point, point.partition("@")[0]}:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


def arm(bomb: CrashPoint) -> None:
    """Put the bomb into the places that matter."""
    call, send, flush = KafkaWriter._call, KafkaWriter.send, KafkaWriter._flush_then_commit
    assigned, revoked = StageLoop._assigned, StageLoop._revoked
    storing: dict[KafkaWriter, bool] = {}  # whether its transaction holds a checkpoint

    def calling(self: KafkaWriter, what: Callable[..., object], doing: str, *arguments: object) -> None:
        before = {"adding offsets to the transaction": "after-produce", "committing": "before-commit"}.get(doing)
        if before:
            bomb.passing("in-checkpoint" if storing[self] else before)
        call(self, what, doing, *arguments)
        if doing == "committing" and not storing[self]:
            bomb.passing("after-commit")

    def sending(self: KafkaWriter, outputs: Sequence[Output]) -> None:
        storing[self] = any(output.topic.endswith(".changelog") for output in outputs)
        if not storing[self]:
            bomb.passing("mid-batch")
        send(self, outputs)

    def flushing(self: KafkaWriter, offsets: Any, consumer: Any) -> None:
        # At least once: the outputs are flushed and there to be read, and then the offsets are committed.
        flush(self, [], consumer)
        bomb.passing("in-checkpoint" if storing[self] else f"before-commit@{offsets[0].topic}")
        flush(self, offsets, consumer)
        if not storing[self]:
            bomb.passing("after-commit")

    def recovering(self: StageLoop, partition: int, committed: Mapping[str, int | None]) -> Mapping[str, int]:
        bomb.passing("in-recovery")
        return assigned(self, partition, committed)

    def revoking(self: StageLoop, partitions: Sequence[int]) -> None:
        bomb.passing("in-rebalance")
        revoked(self, partitions)

    for name, patch in {"_call": calling, "send": sending, "_flush_then_commit": flushing}.items():
        setattr(KafkaWriter, name, patch)
    for name, step in {"_assigned": recovering, "_revoked": revoking}.items():
        setattr(StageLoop, name, step)


def step_clock(file: Path) -> None:
    """Shift ``time.time`` and ``time.time_ns`` by the seconds in the file."""
    real_s, real_ns = time.time, time.time_ns

    known = [0]

    def offset_s() -> int:
        found = int(file.read_text() or 0) if file.exists() else 0
        if found != known[0]:
            known[0] = found
            with file.with_suffix(".seen").open("a") as seen:
                seen.write(f"{found}\n")
        return found

    time.time = lambda: real_s() + offset_s()
    time.time_ns = lambda: real_ns() + offset_s() * 1_000_000_000


def main() -> None:
    """Install the faults named in the environment, then run the ordinary command."""
    armed, clock = os.environ.get(CRASH), os.environ.get(CLOCK)
    if armed:
        arm(CrashPoint(armed))
    if clock:
        step_clock(Path(clock))
    from millstream.cli import main as command

    command()


if __name__ == "__main__":
    main()
