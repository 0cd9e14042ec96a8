"""The end of a stage loop without a word: no close, no last checkpoint."""

from __future__ import annotations

from millstream.runtime.loop import StageLoop


def crash(loop: StageLoop, written: bool = True) -> None:
    """Leave the loop for good; what it was just writing is there, or not."""
    loop._transactions._thread.shutdown(cancel_futures=not written)
