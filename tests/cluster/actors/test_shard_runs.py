"""The coordinator's side of a replica: assignments go out whole, reports come in as events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from cluster.actors import shard_runs
from cluster.actors.event_queue import EventQueue
from cluster.actors.job_run import JobBook, JobRun
from cluster.actors.knowledge import Knowledge
from cluster.actors.node_meter import RunMeter
from cluster.actors.options import FleetOptions, ReplicaOptions
from cluster.actors.outcomes import Done, Failed, Failure, Order, Progress, Report
from cluster.actors.shard_runs import ShardRuns
from cluster.actors.slot import SlotSpec
from cluster.actors.slots import Slots
from cluster.actors.tasks import Tasks
from cluster.ledger.usage import Outcome, Work
from cluster.progress import NodeView
from cluster.scheduler.commands import RunAssignment
from cluster.scheduler.events import Event, ReplicaLost, ShardFailed, ShardsCommitted
from cluster.scheduler.request import OperatingPoint
from cluster.storage.commit import commit, find_commit
from cluster.storage.epoch import claim
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.types import CommitRecord
from tests.support import jobfactory

JOB = jobfactory.workload(count=600)  # a hundred shards


class Method:
    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def remote(self, *args: Any) -> Awaitable[Any]:
        answer: asyncio.Future[Any] = asyncio.ensure_future(self._answer(args))
        return answer

    async def _answer(self, args: tuple[Any, ...]) -> Any:
        answer = self._call(*args)
        return await answer if asyncio.isfuture(answer) or asyncio.iscoroutine(answer) else answer


class Actor:
    """A replica or a meter, by what it was asked. reports: what ``report`` answers, in turn."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.abandoned: list[tuple[int, float]] = []
        self.reports: asyncio.Queue[Report | Exception] = asyncio.Queue()
        self.settled: dict[str, Outcome] = {}
        self.lost: list[str] = []
        self.assign = Method(self.orders.append)
        self.abandon = Method(lambda *args: self.abandoned.append(args))
        self.report = Method(self._report)
        self.settle = Method(self.settled.update)
        self.lose = Method(self.lost.append)
        self.working: Work | None = None
        self.at_work = Method(lambda _: self.working)

    async def _report(self, _: float) -> Report:
        report = await self.reports.get()
        if isinstance(report, Exception):
            raise report
        return report


class World:
    """A coordinator with one job and one replica, awake."""

    def __init__(self, store: ObjectStore) -> None:
        options = FleetOptions(store.config, "cluster")
        self.store = store
        self.book, self.events = JobBook(), EventQueue()
        self.job = self.book["job"] = JobRun(JOB, store)
        self.job.epoch = claim(store, "job")
        knowledge = Knowledge(store, options, "run")
        self.slots = Slots(options, "run", self.book, knowledge, self.events)
        spec = SlotSpec("r", "node", "host", "cpu", ReplicaOptions("cpu", 1))
        self.slots.join(NodeView("node", "host", {}, ()), [spec])
        self.slot = self.slots["r"]
        self.replica, self.meter = Actor(), Actor()
        self.slot.expect("model")
        self.slot.actor, self.slot.meter = self.replica, RunMeter(self.meter, "run")
        self.runs = ShardRuns(self.book, self.slots, self.events, Tasks())

    def begin(self, number: int, first: int, stop: int) -> None:
        self.runs.begin(
            self.slot, RunAssignment(number, "r", "job", first, stop, OperatingPoint(64))
        )

    async def told(self, events: int) -> list[Event]:
        """So many events, in order."""
        told: list[Event] = []
        while len(told) < events:
            told += await self.events.get()
        return told

    def record(self, shard: int) -> CommitRecord:
        attempt = f"{self.slot.attempts}{shard:016d}"
        return jobfactory.record_of(JOB, JOB.shard(shard), b"", attempt_id=attempt)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path))


def play(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, scene: Callable[[World], Awaitable[None]]
) -> None:
    monkeypatch.setattr("ray.kill", lambda *_, **__: None)
    monkeypatch.setattr("ray.nodes", lambda: [{"NodeID": "node", "Alive": True}])

    async def main() -> None:
        await scene(World(store))

    asyncio.run(main())


def done(number: int, first: int, stop: int, *, won: bool = True) -> Done:
    images = (stop - first) * JOB.shard_images
    return Done(number, "job", first, stop, won, images, 1.0, jobfactory.ESTIMATE)


def test_a_report_of_many_shards_is_one_event(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(world: World) -> None:
        world.begin(1, 0, 50)
        world.begin(2, 50, 60)
        world.replica.reports.put_nowait(
            Report({"job": Progress(12, "busy")}, (done(1, 0, 40), done(1, 40, 45, won=False)))
        )
        committed, beaten = await world.told(2)
        assert isinstance(committed, ShardsCommitted)
        assert isinstance(beaten, ShardsCommitted)
        assert (committed.first, committed.stop, beaten.first, beaten.stop) == (0, 40, 40, 45)
        assert [(o.first, o.stop) for o in world.replica.orders] == [(0, 50), (50, 60)]
        snapshot = world.job.snapshot()
        (view,) = snapshot.replicas
        assert (view.committed_images, view.open_images, view.note) == (240, 12, "busy")
        assert (snapshot.run_images, snapshot.open_images) == (240, 12), "what others made is not"
        world.replica.reports.put_nowait(Report(done=(done(1, 45, 50), done(2, 50, 60))))
        await world.told(2)
        assert world.slot.assigned == {}
        assert world.job.snapshot().open_images == 0

    play(store, monkeypatch, scene)


def test_what_was_given_up_is_no_failure(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(world: World) -> None:
        world.begin(1, 0, 10)
        world.runs.revoke(world.slot, 1, "job")
        world.runs.revoke(world.slot, 7, "job")  # of which all is answered for
        broken = Failed(1, "job", 0, 1, Failure("a full disk", fatal=False))
        given_up = Failed(1, "job", 1, 10, Failure("given up", fatal=False, abandoned=True))
        world.replica.reports.put_nowait(Report(failed=(broken, given_up)))
        failures = await world.told(10)
        assert all(isinstance(event, ShardFailed) for event in failures)
        assert [event.shard for event in failures if isinstance(event, ShardFailed)] == [*range(10)]
        assert [e.revoked for e in failures if isinstance(e, ShardFailed)] == [False] + 9 * [True]
        assert world.replica.abandoned == [(1, 0.0)]
        assert world.job.retries == 1
        assert world.slot.jobs_under_way == set()

    play(store, monkeypatch, scene)


def test_what_a_lost_replica_had_committed_counts_before_it_is_lost(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(world: World) -> None:
        world.begin(1, 0, 30)
        world.replica.reports.put_nowait(Report(done=(done(1, 0, 5),)))
        await world.told(1)
        for shard in (5, 6, 8):  # and 7 is on its way
            commit(store, world.record(shard))
        world.meter.working = Work("job", 10)
        commit(store, jobfactory.record_of(JOB, JOB.shard(9), b""))  # another's
        world.replica.reports.put_nowait(ActorDiedError())
        first, second, lost = await world.told(3)
        assert isinstance(first, ShardsCommitted)
        assert isinstance(second, ShardsCommitted)
        assert [(first.first, first.stop), (second.first, second.stop)] == [(5, 7), (8, 9)]
        assert isinstance(lost, ReplicaLost)
        assert lost.at_work == ("job", 10)
        assert set(world.meter.settled.values()) == {"won"}
        assert len(world.meter.settled) == 3
        assert world.meter.lost == ["run/r.1"]
        assert world.job.retries == 1
        assert world.slot.actor is None

    play(store, monkeypatch, scene)


def test_a_silent_replica_is_given_up_once(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_runs, "SILENCE_S", 0.01)

    async def scene(world: World) -> None:
        world.begin(1, 0, 30)
        (lost,) = await world.told(1)
        assert isinstance(lost, ReplicaLost)
        assert "silent" in lost.reason
        assert lost.at_work is None
        world.begin(2, 30, 40)  # it was commanded before that was known
        assert world.slot.assigned == {}

    play(store, monkeypatch, scene)


def test_the_one_writer_commits_what_a_report_brings(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(world: World) -> None:
        world.begin(1, 0, 5)
        records = [world.record(shard) for shard in range(4)]
        commit(store, jobfactory.record_of(JOB, JOB.shard(1), b""))  # another was first
        world.replica.reports.put_nowait(Report(uncommitted=tuple((1, r) for r in records)))
        events = await world.told(3)
        assert all(isinstance(event, ShardsCommitted) for event in events)
        assert find_commit(store, "job", 3) == records[3]
        outcomes = [world.meter.settled[record.attempt_id] for record in records]
        assert outcomes == ["won", "lost", "won", "won"]
        assert world.job.snapshot().run_images == 3 * JOB.shard_images

        claim(store, "job")  # by a newer run
        last = world.record(4)
        world.replica.reports.put_nowait(Report(uncommitted=((1, last),)))
        (refused,) = await world.told(1)
        assert isinstance(refused, ShardFailed)
        assert refused.fatal
        assert "newer run" in refused.reason
        assert find_commit(store, "job", 4) is None
        assert world.meter.settled[last.attempt_id] == "lost"

    play(store, monkeypatch, scene)
