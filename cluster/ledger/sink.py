"""Where a node's meter puts its rows: the energy log, or nowhere. Pure but for the clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from cluster.clock import Anchor
from cluster.ledger.usage import EnergyRow


@dataclass(frozen=True)
class Origin:
    """Where rows come from: what is the same in all that one node writes."""

    cluster_id: str
    host: str
    anchor: Anchor


class RowSink(Protocol):
    """Takes the rows of one node. Thread-safe."""

    @property
    def origin(self) -> Origin: ...

    @property
    def due(self) -> bool:
        """Whether it is time to flush."""
        ...

    def add(self, rows: Iterable[EnergyRow]) -> None:
        """Take rows, to be written with the next flush. All rows of an interval come together."""
        ...

    def flush(self) -> bool:
        """Write what is new; False if that failed: then it waits for the next time."""
        ...

    def close(self) -> bool:
        """Flush, and write that nothing follows. Add nothing afterwards."""
        ...


class Discard:
    """A sink that keeps nothing, for a process that measures itself outside any fleet."""

    due = False

    def __init__(self, host: str) -> None:
        self.origin = Origin("", host, Anchor.now())

    def add(self, rows: Iterable[EnergyRow]) -> None:
        """Forget the rows."""
        deque(rows, maxlen=0)  # it may be a generator that has work to do

    def flush(self) -> bool:
        return True

    def close(self) -> bool:
        return True
