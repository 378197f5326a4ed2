"""A thread for Ray's start and end: the signals to stop never reach it, and its waits have a limit.

Ray's processes inherit the thread's signal mask. So a signal to all processes of a run (Ctrl-C on
a terminal, a closed terminal, ``scancel``) ends none of Ray's before the driver has stopped the
run, and Ray does not replace the driver's own handlers, which it does only in the main thread.
"""

from __future__ import annotations

import atexit
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from itertools import chain
from queue import SimpleQueue
from typing import Any

import psutil
import ray

from cluster.clock import monotonic_s
from cluster.stopping import STOP_SIGNALS, Stop, Stopped

LOOK_S = 0.1


class Stuck(Exception):
    """Ray did not come back within the limit."""


class RayThread:
    """The thread in which Ray is started and stopped: there a wait of Ray's can be given up.

    It lives as long as the Ray it started: the kernel ends with it the processes it started.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="un0-ray", daemon=True).start()

    def call(self, function: Callable[[], Any], limit_s: float, stop: Stop | None = None) -> Any:
        """What it returns or raises; Stuck after limit_s, Stopped when ``stop`` asks for it; then
        Ray is left alone."""
        future: Future[Any] = Future()
        self._calls.put((function, future))
        until_s = monotonic_s() + limit_s
        try:
            while not wait([future], LOOK_S).done:
                if stop is not None and stop.times:
                    raise Stopped
                if monotonic_s() > until_s:
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
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        while (call := self._calls.get()) is not None:
            function, future = call
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)


def restore_handlers() -> None:
    """Put the handlers of signals back in place that Ray, imported before this package, has put
    its own before. To be called when Ray is up."""
    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            if (handler := signal.getsignal(number)) is not None:  # else it is none of Python's
                signal.signal(number, handler)


def shut_down() -> None:
    """Disconnect from Ray; a Ray of this process's own is gone then. To be called in the thread."""
    node = getattr(ray._private.worker, "_global_node", None)
    started = {} if node is None else node.all_processes
    family: list[psutil.Process] = []
    for info in chain.from_iterable(started.values()):
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(info.process.pid)
            family += [process, *process.children(recursive=True)]
        info.process.terminate = info.process.kill  # they would not hear a SIGTERM
    ray.shutdown()
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=1.0)
