"""Calls that block, in a bounded number of threads; and one read that many share."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Generic, ParamSpec, TypeVar

import anyio
import anyio.to_thread

from cluster.clock import monotonic_s
from cluster.errors import Retryable

P = ParamSpec("P")
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class Busy(Retryable):
    """Too many calls wait for a thread already."""


class Pool:
    """At most ``threads`` calls at once, and ``waiting`` more that wait for their turn."""

    def __init__(self, threads: int, waiting: int) -> None:
        self._limiter = anyio.CapacityLimiter(threads)
        self._most = threads + waiting
        self.inside = 0

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The call's result. Raises Busy where too many wait."""
        if self.inside >= self._most:
            raise Busy("too many requests wait for the store; try again in a second")
        self.inside += 1
        try:
            return await anyio.to_thread.run_sync(
                partial(call, *args, **kwargs), limiter=self._limiter
            )
        finally:
            self.inside -= 1


@dataclass(frozen=True)
class _Reading(Generic[T]):
    task: asyncio.Future[T]
    since_s: float


class Shared(Generic[K, T]):
    """What was read of each key in the last ``fresh_s`` seconds; reads of one key are one read.

    most: keys that are kept; the least recently read are forgotten. An error is given to all who
    wait, and not kept. reads: how often ``read`` was called.
    """

    def __init__(
        self, read: Callable[[K], Awaitable[T]], fresh_s: float, *, most: int = 10_000
    ) -> None:
        self._read, self._fresh_s, self._most = read, fresh_s, most
        self._readings: OrderedDict[K, _Reading[T]] = OrderedDict()
        self.reads = 0

    async def get(self, key: K) -> T:
        """What the key has, not older than ``fresh_s`` when this call began."""
        reading = self._readings.get(key)
        if reading is None or (
            reading.task.done() and monotonic_s() - reading.since_s >= self._fresh_s
        ):
            reading = self._begin(key)
        return await asyncio.shield(reading.task)

    def put(self, key: K, value: T) -> None:
        """The key has this now; a read under way does not replace it."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        done.set_result(value)
        self._keep(key, _Reading(done, monotonic_s()))

    def drop(self, key: K) -> None:
        """Read the key anew the next time."""
        self._readings.pop(key, None)

    def _begin(self, key: K) -> _Reading[T]:
        self.reads += 1
        task = asyncio.ensure_future(self._read(key))
        reading = _Reading(task, monotonic_s())
        self._keep(key, reading)

        def done(task: asyncio.Future[T]) -> None:
            failed = task.cancelled() or task.exception() is not None
            if failed and self._readings.get(key) is reading:
                del self._readings[key]

        task.add_done_callback(done)
        return reading

    def _keep(self, key: K, reading: _Reading[T]) -> None:
        self._readings[key] = reading
        self._readings.move_to_end(key)
        while len(self._readings) > self._most:
            self._readings.popitem(last=False)
