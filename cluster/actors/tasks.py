"""Work beside the controller's loop, of which no failure goes unnoticed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

logger = logging.getLogger(__name__)


class Tasks:
    """Runs coroutines and holds on to them until they are done."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def do(
        self,
        work: Coroutine[Any, Any, None],
        broke: Callable[[BaseException], None] | None = None,
    ) -> None:
        """Do the work beside everything else. broke: called with the error if it raises one, so
        that no job waits for it in vain."""

        def done(task: asyncio.Task[None]) -> None:
            self._running.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.error("work of the coordinator broke", exc_info=error)
                if broke is not None:
                    broke(error)

        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(done)
