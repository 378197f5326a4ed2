"""What happens to a fleet, in order, for its scheduler."""

from __future__ import annotations

import asyncio

from cluster.clock import monotonic_s
from cluster.scheduler.events import Event, Tick


class EventQueue:
    """Every part of the controller puts events here; the loop alone takes them."""

    def __init__(self) -> None:
        self._batches: asyncio.Queue[tuple[Event, ...]] = asyncio.Queue()
        self._reminder: asyncio.TimerHandle | None = None

    def put(self, *events: Event) -> None:
        """Add what happened at once: the scheduler plans for it at once."""
        if events:
            self._batches.put_nowait(events)

    async def get(self) -> tuple[Event, ...]:
        """The oldest batch of events, once there is one."""
        return await self._batches.get()

    def remind(self, at_s: float) -> None:
        """Put a Tick at that time, in place of an earlier reminder."""
        if self._reminder is not None:
            self._reminder.cancel()
        delay_s = max(0.0, at_s - monotonic_s())
        self._reminder = asyncio.get_running_loop().call_later(
            delay_s, lambda: self.put(Tick(max(at_s, monotonic_s())))
        )
