"""A store that counts what is asked of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from cluster.storage.object_store import ObjectInfo, ObjectStore
from tests.support.faulty_store import FaultRates, FaultyStore


class CountingStore(FaultyStore):
    """Another store. calls: by verb; listed: keys that listings gave."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner, 0, FaultRates())
        self.calls: Counter[str] = Counter()
        self.listed: list[str] = []

    def _begin(self, verb: str, key: str) -> None:
        super()._begin(verb, key)
        self.calls[verb] += 1

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        for info in super().list(prefix, after=after):
            self.listed.append(info.key)
            yield info
