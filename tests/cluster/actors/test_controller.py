"""The controller's parts, as far as no replica is needed: nodes, events, caps and broken work."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cluster.actors.controller import Controller
from cluster.actors.event_queue import EventQueue
from cluster.actors.job_run import JobBook, JobRun
from cluster.actors.knowledge import Knowledge
from cluster.actors.options import FleetOptions, ReplicaOptions
from cluster.actors.slot import SlotSpec
from cluster.actors.slots import Slots
from cluster.actors.tasks import Tasks
from cluster.progress import NodeView
from cluster.scheduler.events import NodeLost, Tick
from cluster.states import ReplicaState
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from tests.support import jobfactory

NODE = NodeView("node-1", "alpha", {}, ("Test CPU",))
SPECS = [
    SlotSpec(f"alpha-{n}", "node-1", "alpha", "cpu", ReplicaOptions("cpu", 1)) for n in range(2)
]


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path))


def slots_of(store: ObjectStore, book: JobBook, events: EventQueue) -> Slots:
    options = FleetOptions(store.config, "cluster", own=False)
    return Slots(options, "run", book, Knowledge(store, options, "run"), events)


def test_a_node_that_is_lost_twice_is_reported_once(store: ObjectStore) -> None:
    """A replica's silence and the next look at the nodes both find it gone."""

    async def main() -> None:
        events, book = EventQueue(), JobBook()
        job = book["job"] = JobRun(jobfactory.workload(), store)
        slots = slots_of(store, book, events)
        joined = slots.join(NODE, SPECS)
        assert [event.replica_id for event in joined] == ["alpha-0", "alpha-1"]
        job.update("alpha-0", state=ReplicaState.AWAKE)
        slots.lose_node("node-1")
        slots.lose_node("node-1")
        (lost,) = await events.get()
        assert isinstance(lost, NodeLost)
        events.put(Tick(0.0))
        assert await events.get() == (Tick(0.0),), "there was one event"
        view = job.view("alpha-0")
        assert (view.state, view.note) == ("lost", "its node is gone")
        assert slots.get("alpha-0") is not None, "commands that were given before may name it"
        slots.forget("node-1")
        assert slots.get("alpha-0") is None

    asyncio.run(main())


def test_only_the_newest_reminder_comes() -> None:
    async def main() -> None:
        events = EventQueue()
        events.remind(1e12)
        events.remind(0.0)
        (tick,) = await events.get()
        assert isinstance(tick, Tick)

    asyncio.run(main())


def test_work_that_breaks_is_reported_and_the_rest_goes_on() -> None:
    async def main() -> None:
        broke: list[str] = []
        done = asyncio.Event()

        async def bad() -> None:
            raise ValueError("out of paper")

        async def good() -> None:
            done.set()

        tasks = Tasks()
        tasks.do(bad(), lambda error: broke.append(str(error)))
        tasks.do(good())
        await done.wait()
        await asyncio.sleep(0)
        assert broke == ["out of paper"]

    asyncio.run(main())


def test_a_cap_is_kept_and_shown(store: ObjectStore) -> None:
    async def main() -> None:
        controller = Controller(FleetOptions(store.config, "cluster", own=False))
        assert controller.view().cap_w is None
        controller.cap(500.0)
        assert controller.view().cap_w == 500.0
        controller.cap(None)
        assert controller.view().cap_w is None

    asyncio.run(main())
