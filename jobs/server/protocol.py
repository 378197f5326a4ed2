"""uvicorn's HTTP/1.1, with a limit on how long the head of a request may take to arrive."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


def bounded_protocol(head_s: float) -> type[asyncio.Protocol]:
    """The protocol. A connection that has sent no whole head by then is closed: uvicorn itself
    waits for ever, and a few such connections would use up what it may have."""

    class Bounded(H11Protocol):
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def _watch(self) -> None:
            """A head is awaited as long as the other side is idle."""
            if self.conn.their_state is not h11.IDLE:
                self._forget()
            elif self._late is None and self.timeout_keep_alive_task is None:
                self._late = self.loop.call_later(head_s, self._close)

        def _forget(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _close(self) -> None:
            self._late = None
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self.transport.close()

    return Bounded
