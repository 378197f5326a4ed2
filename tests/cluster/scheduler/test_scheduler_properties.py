"""The scheduler under random fleets, losses and late answers: nothing lost, nothing exceeded."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cluster.scheduler.commands import RunAssignment
from cluster.scheduler.events import (
    CapChanged,
    JobSubmitted,
    NodeDraining,
    NodeLost,
    ReplicaAwake,
    ReplicaParked,
    ShardsCommitted,
    StopRequested,
)
from cluster.scheduler.request import JobRequest
from tests.support.effort import examples
from tests.support.fleetworld import FleetWorld, profile

PROFILES = [
    profile("fast", 1000, 500, idle_w=50, load_s=5, load_j=500, faster=((1200, 800),)),
    profile("thrifty", 300, 60, idle_w=10, load_s=3, load_j=100),
    profile("edge", 10, 15, idle_w=1, load_s=1, load_j=20),
    profile("new", 200, 90, load_j=20, samples=0, quality="estimated", bounds_j=(0.1, 0.9),
            faster=((250, 300),)),
]  # fmt: skip
PROFILES += [replace(found, model="n") for found in PROFILES]
HARDWARE = st.sampled_from(["fast", "thrifty", "edge", "new"])


class Fleet(RuleBasedStateMachine):
    """Joins, losses, drains, stops, caps, budgets; answers in any order, twice, and too late."""

    @initialize(cap_w=st.one_of(st.none(), st.floats(0, 3000)))
    def begin(self, cap_w: float | None) -> None:
        self.world = FleetWorld(PROFILES, cap_w=cap_w)
        self.cap_w = cap_w
        self.jobs: dict[str, JobRequest] = {}
        self.old: list[RunAssignment] = []
        self.seen = 0

    @rule(hardware=st.lists(HARDWARE, min_size=1, max_size=3), node=st.integers(0, 3))
    def join(self, hardware: list[str], node: int) -> None:
        if len(self.world.state.slots) < 8:
            self.world.join(*hardware, node=f"n{node}")

    @rule(
        images=st.integers(1, 20_000),
        shard_images=st.integers(50, 2000),
        deadline_s=st.one_of(st.none(), st.floats(1, 3000)),
        priority=st.integers(0, 2),
        owner=st.sampled_from("ab"),
        objective=st.sampled_from(["energy", "deadline", "throughput", "cost", "carbon"]),
        budget_j=st.one_of(st.none(), st.floats(0, 3000)),
        done=st.booleans(),
        model=st.sampled_from("mn"),
    )
    def submit(  # type: ignore[no-untyped-def]
        self, images, shard_images, deadline_s, priority, owner, objective, budget_j, done, model
    ):
        if len(self.world.state.jobs) >= 4:
            return
        at_s = self.world.now_s
        request = JobRequest(
            f"j{len(self.jobs)}", model, images, shard_images, owner, priority,
            None if deadline_s is None else at_s + deadline_s, objective, budget_j,
        )  # fmt: skip
        self.jobs[request.job_id] = request
        had = ((0, request.shards // 2),) if done else ()
        self.world.send(JobSubmitted(at_s, request, had))

    @rule(data=st.data())
    def wake_up(self, data: st.DataObject) -> None:
        if self.world.waking:
            self.world.awake(data.draw(st.sampled_from(sorted(self.world.waking))))

    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        if self.world.parking:
            self.world.park(data.draw(st.sampled_from(sorted(self.world.parking))))

    @rule(data=st.data(), shards=st.one_of(st.none(), st.integers(1, 3)))
    def commit(self, data: st.DataObject, shards: int | None) -> None:
        name = self._busy(data)
        if name is not None:
            self.old.append(self.world.commit(name, shards))

    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        name = self._busy(data)
        if name is not None:
            self.old.append(self.world.fail(name))

    @rule(data=st.data(), gone=st.booleans())
    def lose(self, data: st.DataObject, gone: bool) -> None:
        if self.world.state.slots:
            name = data.draw(st.sampled_from(sorted(self.world.state.slots)))
            self.old += self.world.assignments.get(name, [])
            self.world.lose(name, gone=gone)

    @rule(node=st.integers(0, 3), drain=st.booleans(), within_s=st.one_of(st.none(), st.just(3.0)))
    def node_goes(self, node: int, drain: bool, within_s: float | None) -> None:
        now_s = self.world.now_s
        if drain:
            until_s = None if within_s is None else now_s + within_s
            self.world.send(NodeDraining(now_s, f"n{node}", until_s))
            return
        gone = [r.replica_id for r in self.world.state.slots.values() if r.node_id == f"n{node}"]
        for name in gone:
            for held in (self.world.waking, self.world.parking, self.world.assignments):
                held.pop(name, None)  # type: ignore[attr-defined]
            self.world.parked.discard(name)
        self.world.send(NodeLost(now_s, f"n{node}", "it went away"))

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def answer_again(self, data: st.DataObject) -> None:
        """A zombie, or a message that comes twice: the shards are committed all the same."""
        assignment = data.draw(st.sampled_from(self.old))
        self.world.send(
            ShardsCommitted(
                self.world.now_s,
                assignment.replica_id,
                assignment.assignment_id,
                assignment.job_id,
                assignment.first,
                assignment.stop,
            )
        )
        self.world.send(ReplicaAwake(self.world.now_s, "nobody", "m"))
        self.world.send(ReplicaParked(self.world.now_s, assignment.replica_id + "x"))

    @rule(data=st.data(), cancel=st.booleans())
    def stop(self, data: st.DataObject, cancel: bool) -> None:
        if self.jobs:
            job_id = data.draw(st.sampled_from(sorted(self.jobs)))
            self.world.send(StopRequested(self.world.now_s, job_id, cancel))

    @precondition(lambda self: self.world.state.jobs)
    @rule(cap_w=st.one_of(st.none(), st.floats(0, 3000)))
    def cap(self, cap_w: float | None) -> None:
        self.cap_w = cap_w
        self.world.send(CapChanged(self.world.now_s, cap_w))

    @rule(seconds=st.floats(0, 500))
    def wait(self, seconds: float) -> None:
        self.world.tick(seconds)

    def _busy(self, data: st.DataObject) -> str | None:
        busy = sorted(name for name, assignments in self.world.assignments.items() if assignments)
        return data.draw(st.sampled_from(busy)) if busy else None

    @invariant()
    def power_is_capped(self) -> None:
        """Decisions never take the fleet over its cap, nor further over one that was lowered."""
        if not hasattr(self, "world"):
            return
        power_w = self.world.state.power_w
        before_w = getattr(self, "power_w", 0.0)
        if self.cap_w is not None:
            assert power_w <= max(self.cap_w, before_w) + 1e-6
        self.power_w = power_w

    @invariant()
    def budgets_hold(self) -> None:
        """No assignment is given that what is spent and promised already leaves no room for."""
        if not hasattr(self, "world"):
            return
        new = {c.job_id for c in self.world.log[self.seen :] if isinstance(c, RunAssignment)}
        self.seen = len(self.world.log)
        for job_id in new & set(self.world.state.jobs):
            job = self.world.state.jobs[job_id]
            if job.request.energy_budget_j is not None and job.assignments:
                assert job.spent_j + job.reserved_j <= job.request.energy_budget_j * (1 + 1e-9)

    def teardown(self) -> None:
        """Once the world behaves, whatever can be run is run: nobody waits for ever."""
        if not hasattr(self, "world"):
            return
        self.world.send(CapChanged(self.world.now_s, None))
        self.world.join("thrifty", node="late")
        self.world.run()
        assert set(self.world.ended) == set(self.jobs)
        for end in self.world.ended.values():
            if end.state == "completed":
                assert not end.set_aside


Fleet.TestCase.settings = settings(
    max_examples=examples(150),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.reuse, Phase.generate],
)
TestFleet = Fleet.TestCase
