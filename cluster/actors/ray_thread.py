"""Ray's start and end, in a thread that the signals to stop never reach.

Ray's processes inherit the thread's signal mask. So a signal to all processes of a run (Ctrl-C on
a terminal, a closed terminal, ``scancel``) ends none of Ray's before the driver has stopped the
run, and Ray does not replace the driver's own handlers, which it does only in the main thread.
The thread lives as long as this process: Linux kills Ray's processes when the thread that started
them ends. It also puts starts and ends in line, when a run ends before its Ray was up.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from typing import TypeVar

import psutil
import ray

from cluster.stopping import STOP_SIGNALS

T = TypeVar("T")


def _block() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


_THREAD = ThreadPoolExecutor(1, thread_name_prefix="ray", initializer=_block)


def begin(connect: Callable[[], T]) -> Future[T]:
    """Have Ray started, or connected to, by that function."""
    return _THREAD.submit(connect)


def restore_handlers() -> None:
    """Put the handlers of signals back in place that Ray, imported before this package, has put
    its own before. To be called when Ray is up."""
    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            if (handler := signal.getsignal(number)) is not None:  # else it is none of Python's
                signal.signal(number, handler)


def end() -> Future[None]:
    """Have Ray disconnected from; a Ray of this process's own is gone then."""
    return _THREAD.submit(_end)


def _end() -> None:
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
