"""A thread for Ray's own calls, whose waits have no limit."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any

import ray


class Stuck(Exception):
    """Ray did not come back within the limit."""


class RayThread:
    """The thread in which Ray is started and stopped: there a wait of Ray's can be given up.

    It lives as long as the Ray it started: the kernel ends with it the processes it started.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="un0-ray", daemon=True).start()

    def call(self, function: Callable[[], Any], limit_s: float) -> Any:
        """What it returns or raises; Stuck after limit_s; then Ray is left alone."""
        future: Future[Any] = Future()
        self._calls.put((function, future))
        try:
            if not wait([future], limit_s).done:
                raise Stuck
        finally:
            if not future.done():  # also at KeyboardInterrupt: Ray's own end would wait for it
                atexit.unregister(ray.shutdown)
        return future.result()

    def end(self, last: Callable[[], Any] | None = None) -> None:
        """Let it end when what it is at is over, and after this."""
        if last is not None:
            self._calls.put((last, Future()))
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            function, future = call
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
