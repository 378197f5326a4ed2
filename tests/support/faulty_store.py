"""A store that fails on purpose, the same way for the same seed: for tests and rehearsals."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

from cluster.errors import CommitStateUnknown, Retryable
from cluster.storage.chunks import Chunks
from cluster.storage.object_store import ObjectInfo, ObjectStore, StoreConfig

T = TypeVar("T")


@dataclass(frozen=True)
class FaultRates:
    """How often, from 0 to 1, a call meets each fault.

    before: an error, and nothing was done.
    after: it was done, but the reply is lost.
    late: a write whose reply is lost and that takes effect only during some later call, or at
        ``settle()``: a request held up in the network.
    replayed: a conditional write is sent again after a lost reply, and refused because of its
        own first sending.
    truncated: a read ends early without an error.
    slow: ``on_slow`` is called first.
    """

    before: float = 0.0
    after: float = 0.0
    late: float = 0.0
    replayed: float = 0.0
    truncated: float = 0.0
    slow: float = 0.0


class FaultyStore:
    """Another store, seen through faults. ``on_slow(verb, key)`` stands for a delay."""

    def __init__(
        self,
        inner: ObjectStore,
        seed: int,
        rates: FaultRates,
        on_slow: Callable[[str, str], object] = lambda *_: None,
    ) -> None:
        self._inner = inner
        self._rates = rates
        self._on_slow = on_slow
        self._random = random.Random(seed)
        self._late: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    @property
    def config(self) -> StoreConfig:
        return self._inner.config

    def get(self, key: str) -> bytes:
        self._begin("get", key)
        return self._truncated(self._inner.get(key))

    def put(self, key: str, data: bytes | Chunks) -> None:
        self._begin("put", key)
        self._write("put", key, lambda: self._inner.put(key, data), Retryable)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        try:
            self._begin("put_if_absent", key)
        except Retryable as error:
            raise CommitStateUnknown(str(error)) from None
        written = self._write(
            "put_if_absent", key, lambda: self._inner.put_if_absent(key, data), CommitStateUnknown
        )
        if written and self._happens(self._rates.replayed):
            return self._inner.put_if_absent(key, data)
        return written

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        self._begin("list", prefix)
        yield from self._inner.list(prefix, after=after)

    def list_dirs(self, prefix: str) -> Sequence[str]:
        self._begin("list_dirs", prefix)
        return self._inner.list_dirs(prefix)

    def delete(self, key: str) -> None:
        self._begin("delete", key)
        self._write("delete", key, lambda: self._inner.delete(key), Retryable)

    def open_reader(self, key: str) -> AbstractContextManager[BinaryIO]:
        self._begin("open_reader", key)
        if not self._happens(self._rates.truncated):
            return self._inner.open_reader(key)
        data = self._inner.get(key)
        return io.BytesIO(data[: self._below(len(data))])

    def settle(self) -> None:
        """Let every write that is still under way take effect."""
        while self._land_one():
            pass

    def _begin(self, verb: str, key: str) -> None:
        if self._happens(self._rates.slow):
            self._on_slow(verb, key)
        if self._happens(0.5):
            self._land_one()
        if self._happens(self._rates.before):
            raise Retryable(f"{verb} {key}: injected fault, before the effect")

    def _write(self, verb: str, key: str, effect: Callable[[], T], lost: type[Retryable]) -> T:
        if self._happens(self._rates.late):
            with self._lock:
                self._late.append(effect)
            raise lost(f"{verb} {key}: injected fault, the effect is under way")
        result = effect()
        if self._happens(self._rates.after):
            raise lost(f"{verb} {key}: injected fault, after the effect")
        return result

    def _land_one(self) -> bool:
        with self._lock:
            if not self._late:
                return False
            effect = self._late.pop(self._random.randrange(len(self._late)))
        effect()
        return True

    def _truncated(self, data: bytes) -> bytes:
        return data[: self._below(len(data))] if self._happens(self._rates.truncated) else data

    def _happens(self, rate: float) -> bool:
        with self._lock:
            return self._random.random() < rate

    def _below(self, size: int) -> int:
        with self._lock:
            return self._random.randrange(size) if size else 0
