"""The coordinator: feeds the scheduler with what happens and carries out what it answers.

It is disposable. All it knows is in the store; a new one goes on from the commits.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from typing import Any

import ray

from cluster.actors.controller import Controller
from cluster.actors.options import FleetOptions, RunRequest
from cluster.progress import FleetView, Snapshot
from cluster.stopping import Grace

logger = logging.getLogger(__name__)
HEAD = "node:__internal_head__"  # elsewhere it would go, with all jobs, when its node goes
SNAPSHOT_S = 0.25
ALONE_S = 60.0  # a shared coordinator that nobody has needed for so long ends


@ray.remote(num_cpus=0, resources={HEAD: 0.001}, max_restarts=0, max_task_retries=0)
class Coordinator:
    """Runs jobs on a fleet. ``run`` streams a job's snapshots; ``stop`` ends it early, leaving it
    resumable. A run that finds its job running already follows it."""

    def __init__(self, options: FleetOptions) -> None:
        self._options = options
        self._controller: Controller | None = None
        self._main: asyncio.Task[None] | None = None
        self._ending = False

    async def welcome(self) -> bool:
        """Somebody comes. False if this coordinator is about to end: start another."""
        if self._ending:
            return False
        if self._controller is None:
            self._controller = Controller(self._options)
            self._main = asyncio.create_task(self._keep(self._controller))
        self._controller.visited()
        return True

    async def run(self, run: RunRequest) -> AsyncIterator[Snapshot]:
        """Snapshots of the job until it is over; the last one says how it ended."""
        await self.welcome()
        assert self._controller is not None
        job = await self._controller.submit(run)
        while not job.over.is_set():
            yield job.snapshot()
            try:
                await asyncio.wait_for(job.over.wait(), SNAPSHOT_S)
            except TimeoutError:
                continue
        yield job.snapshot()

    async def begin(self, run: RunRequest) -> bool:
        """Run a job of the service without a stream of its own: see ``snapshots``. Returns at once.

        False if it cannot begin yet, because an earlier run of it is still ending or this
        coordinator is, or at all, because a newer claim has it. May be repeated.
        """
        if not await self.welcome():
            return False
        assert self._controller is not None
        return self._controller.begin(run)

    async def snapshots(self) -> dict[str, Snapshot]:
        """All jobs of the service that are under way, and those over since, until ``forget``."""
        if self._controller is None:
            return {}
        self._controller.visited()
        return self._controller.snapshots()

    async def forget(self, job_id: str, epoch: int) -> None:
        """How the job's run ended has been seen by the server of this claim."""
        if self._controller is not None:
            self._controller.forget(job_id, epoch)

    async def stop(
        self,
        job_id: str,
        within_s: float = math.inf,
        hurry: bool = False,
        epoch: int | None = None,
    ) -> None:
        """End the job soon; what is generated is still committed.

        within_s: how long it may take, of a coordinator of a run's own or a job of the service.
        hurry: wait for no shard. epoch: the claim of the server that asks, if one does: it cannot
        stop what a newer claim has taken over.
        """
        if self._controller is not None:
            grace = Grace.of(within_s)
            self._controller.stop(job_id, grace.hurried() if hurry else grace, epoch)

    async def close(self) -> None:
        """Its server ends: end every replica, and write down what was learned and spent."""
        self._ending = True
        if self._controller is not None:
            await self._controller.close()

    async def drain(self, node_id: str, within_s: float | None = None) -> None:
        """The node will go: it gets no more work."""
        if self._controller is not None:
            self._controller.drain(node_id, within_s)

    async def cap(self, watts: float | None) -> None:
        """What the fleet may draw from now on."""
        if self._controller is not None:
            self._controller.cap(watts)

    async def view(self) -> FleetView | None:
        """The fleet now; None before there is any."""
        return None if self._controller is None else self._controller.view()

    async def _keep(self, controller: Controller) -> None:
        """Run the fleet; a shared one until nobody needs it any more."""
        main = asyncio.create_task(controller.main())
        if self._options.own:
            await main
            return
        while not main.done():
            await asyncio.wait([main], timeout=1.0)
            if controller.deserted_for_s > ALONE_S:
                self._ending = True
                await controller.close()
                break
        self._ending = True
        main.cancel()
        ray.kill(ray.get_runtime_context().current_actor)


def end_coordinator(coordinator: Any) -> None:
    """End it at once."""
    ray.kill(coordinator, no_restart=True)
