"""Foreign work: processes other than our replicas' that use a metered device. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from cluster.ledger.usage import Use


@runtime_checkable
class Watcher(Protocol):
    """A source that can see which processes work on its device."""

    def foreign_at_work(self, ours: Collection[int]) -> bool | None:
        """Whether other processes than ``ours`` (pids) worked there since the last call.

        None: unknown.
        """
        ...


def foreign_among(there: set[int], busy: set[int], ours: Collection[int]) -> bool | None:
    """Whether a busy process is foreign; None: unknown. All arguments are pids.

    there: processes on the device. If ours are not among them, the driver counts in another PID
    namespace than we do, and a process that looks foreign may be ours: the result is None.
    """
    return not busy.issubset(ours) if there.issuperset(ours) else None


@dataclass
class ForeignUses:
    """Turns periodic observations of a device into uses: one per period of foreign work.

    An observation covers the time since the one before.
    """

    _last_ns: int | None = None
    _since_ns: int | None = None

    def seen(self, at_work: bool | None, now_ns: int) -> Use | None:
        """The use that begins or ends with this observation, for the device's ledger; else None."""
        last_ns, self._last_ns = self._last_ns, now_ns
        if last_ns is None or bool(at_work) == (self._since_ns is not None):
            return None
        since_ns = last_ns if self._since_ns is None else self._since_ns
        self._since_ns = since_ns if at_work else None
        end_ns = None if at_work else last_ns
        return Use(since_ns, end_ns, "foreign", f"foreign-{since_ns}")
