"""Whether other people's processes work on a device of ours. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from cluster.ledger.usage import Use


@runtime_checkable
class Watcher(Protocol):
    """A source that can see who works on its device."""

    def strangers(self, ours: Collection[int]) -> bool | None:
        """Whether processes other than those worked there since the last call; None: unknown."""
        ...


def strangers_among(there: set[int], busy: set[int], ours: Collection[int]) -> bool | None:
    """Whether a process that is not ours is busy. None if that cannot be told.

    there: the processes on the device, of which ours must be some: else the driver numbers
    processes as another PID namespace does, and what seems to be a stranger may be ourselves.
    """
    return not busy.issubset(ours) if there.issuperset(ours) else None


@dataclass
class Strangers:
    """Makes uses of a device out of looks at it, one for all the time that strangers are seen.

    A look tells of the time since the one before.
    """

    _last_ns: int | None = None
    _since_ns: int | None = None

    def seen(self, at_work: bool | None, now_ns: int) -> Use | None:
        """What to report to the device's ledger after a look: a use that begins or ends."""
        last_ns, self._last_ns = self._last_ns, now_ns
        if last_ns is None or bool(at_work) == (self._since_ns is not None):
            return None
        since_ns = last_ns if self._since_ns is None else self._since_ns
        self._since_ns = since_ns if at_work else None
        end_ns = None if at_work else last_ns
        return Use(since_ns, end_ns, "foreign", f"foreign-{since_ns}")
