"""Calls that may block beyond their own timeout, given up after a limit."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future


class BoundedCalls:
    """Makes calls one at a time in a thread of its own, which is given up when one does not return.

    librdkafka's ``send_offsets_to_transaction`` does not check its timeout while the group coordinator is away
    (its issue 5456), so that a caller would wait without end.

    Parameters
    ----------
    name : str
        Of the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._requests: queue.SimpleQueue[tuple[Future[None], Callable[[], object]] | None] | None = None

    def call(self, call: Callable[[], object], limit_s: float) -> None:
        """Make a call and wait for it.

        Raises
        ------
        TimeoutError
            It did not return within ``limit_s`` seconds. Its thread keeps what it refers to until it returns.
        """
        if self._requests is None:
            self._requests = queue.SimpleQueue()
            # A daemon: a call that never returns must not keep the process from ending.
            threading.Thread(target=_serve, args=(self._requests,), name=self._name, daemon=True).start()
        answer: Future[None] = Future()
        self._requests.put((answer, call))
        try:
            answer.result(limit_s)
        except TimeoutError:
            if not answer.done():
                self.close()
            raise

    def close(self) -> None:
        """End the thread once its call has returned."""
        if self._requests is not None:
            self._requests.put(None)
            self._requests = None


def _serve(requests: queue.SimpleQueue[tuple[Future[None], Callable[[], object]] | None]) -> None:
    while (request := requests.get()) is not None:
        answer, call = request
        try:
            call()
        except BaseException as error:  # noqa: BLE001 handed to the caller
            answer.set_exception(error)
        else:
            answer.set_result(None)
        del request, answer, call  # else the thread would keep the last call's producer while it waits
