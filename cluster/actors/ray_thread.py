"""Ray's start and end, in a thread that the signals to stop never reach.

Ray's processes inherit the thread's signal mask. So a signal to all processes of a run (Ctrl-C on
a terminal, a closed terminal, ``scancel``) ends none of Ray's before the driver has stopped the
run, and Ray does not replace the driver's own handlers, which it does only in the main thread.
The thread lives as long as this process: Linux kills Ray's processes when the thread that started
them ends. It also puts starts and ends in line, when a run ends before its Ray was up.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from typing import TypeVar

import psutil
import ray

from cluster.stopping import STOP_SIGNALS

T = TypeVar("T")
CRASH_HANDLER_OFF = "RAY_DISABLE_FAILURE_SIGNAL_HANDLER"


def _block() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


_THREAD = ThreadPoolExecutor(1, thread_name_prefix="ray", initializer=_block)


def begin(connect: Callable[[], T]) -> Future[T]:
    """Have Ray started, or connected to, by that function."""
    os.environ.setdefault(CRASH_HANDLER_OFF, "1")  # it takes SIGTERM for a crash, in all threads
    return _THREAD.submit(connect)


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
