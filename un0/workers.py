"""The sampler's threads, each of which computes alone or in a team."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from un0.engine.base import Job
from un0.machine import usable_cpus


def default_threads() -> int:
    """PyTorch's number of threads, but no more than the CPUs that this process may use: PyTorch
    knows of affinity, not of quotas."""
    return min(torch.get_num_threads(), usable_cpus())


def one_thread_workers(count: int) -> ThreadPoolExecutor:
    """A pool whose threads are all there are: PyTorch's own parallelism is off inside them."""
    before = torch.get_num_threads()
    started = threading.Barrier(count + 1)

    def start() -> None:
        torch.get_num_threads()  # a thread's first call takes over the default: not after ours
        torch.set_num_threads(1)  # of this thread, and the default of threads yet to come ...
        started.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="un0-sampler", initializer=start)
    try:
        for _ in range(count):
            pool.submit(int)  # a thread starts at its first task
        started.wait()
    except BaseException:
        started.abort()  # no thread is left waiting for those that could not start
        raise
    torch.set_num_threads(before)  # ... which is put back here
    return pool


def keep_freed_memory() -> None:
    """Keep activations from being mapped and unmapped for every tile: up to 30% of the time.

    glibc returns freed memory to the system above thresholds that follow the largest mapped block
    freed so far, up to 32 MiB (mallopt(3)); so free one of nearly that. It is never touched.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


@dataclass(frozen=True)
class Together:
    """What becomes of a shared tile; to its reader it is a future."""

    job: Job
    parts: list[Future[None]]

    def result(self) -> NDArray[np.uint8]:
        for part in self.parts:
            part.result()
        return self.job.levels

    def cancel(self) -> None:
        self.job.abandon()
        for part in self.parts:
            part.cancel()
