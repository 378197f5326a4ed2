"""Handing out work: how much at a time, to whom, and when a second attempt is made."""

from __future__ import annotations

from cluster.scheduler.commands import RevokeAssignment, RunAssignment
from cluster.scheduler.events import NodeDraining, ShardsCommitted, StopRequested
from tests.support.fleetworld import FleetWorld, profile

GPU = profile("gpu", 1000, 500)
EDGE = profile("edge", 10, 4)  # 100 times slower


def images(assignment: RunAssignment) -> int:
    return 100 * (assignment.stop - assignment.first)


def test_assignments_are_sized_by_seconds_of_work() -> None:
    world = FleetWorld([GPU, EDGE])
    world.join("gpu")
    world.join("edge")
    world.submit(shards=10_000, objective="throughput")
    world.play(1)
    assert [images(assignment) for assignment in world.assigned("r0")] == [
        10_000,
        10_000,
    ]  # 10 s each
    assert [images(assignment) for assignment in world.assigned("r1")] == [
        100,
        100,
    ]  # a shard takes 10 s


def test_slow_hardware_is_of_use_and_never_the_tail() -> None:
    world = FleetWorld([GPU, EDGE])
    world.join("gpu")
    world.join("edge")
    world.submit(shards=1000, objective="throughput")
    world.play()
    by_edge = sum(images(assignment) for assignment in world.assigned("r1"))
    assert by_edge > 0
    done_s = next(d.at_s for d in world.state.take_decisions() if d.kind == "park")
    alone_s = 100_000 / 1000
    assert done_s - 3600 <= alone_s + 10  # idles for free, so it is parked an hour later


def test_every_replica_has_its_next_assignment_before_one_ends() -> None:
    world = FleetWorld([GPU])
    for _ in range(3):
        world.join("gpu")
    world.submit("first", shards=3, objective="throughput")
    world.run()
    given = len(world.assigned())
    world.submit("second", shards=1000, objective="throughput")
    world.tick(1)
    order = [assignment.replica_id for assignment in world.assigned()[given:]]
    assert sorted(order[:3]) == ["r0", "r1", "r2"]  # everybody's first before anybody's second
    assert sorted(order[3:]) == ["r0", "r1", "r2"]


def test_resume_runs_only_what_is_missing() -> None:
    world = FleetWorld([GPU])
    world.join("gpu")
    world.submit(shards=10, done=((0, 3), (5, 9)))
    world.run()
    assert sorted(world.committed["j"]) == [3, 4, 9]
    assert world.ended["j"].state == "completed"


def test_a_job_that_is_done_needs_no_replica() -> None:
    world = FleetWorld([GPU])
    world.submit(shards=2, done=((0, 2),))
    assert world.ended["j"].state == "completed"


def test_a_job_that_has_missed_its_deadline_uses_all_that_the_plan_wakes() -> None:
    world = FleetWorld([GPU, profile("thrifty", 300, 60)])
    for hardware in ("gpu", "thrifty", "thrifty"):
        world.join(hardware)
    world.submit(shards=3000, deadline_s=1.0)
    world.play(10)
    seen = len(world.assigned())
    world.play(60)
    assert {assignment.replica_id for assignment in world.assigned()[seen:]} == {"r0", "r1", "r2"}


def test_what_the_plan_has_nothing_left_for_gets_what_others_leave_idle() -> None:
    """A job that takes all replicas but has no more shards to assign must not keep them idle."""
    world = FleetWorld([GPU])
    world.join("gpu")
    world.join("gpu")
    world.submit("all", shards=3, objective="throughput")
    for name in list(world.waking):
        world.awake(name)
    world.submit("modest", shards=4)
    world.tick(1)
    assert "all" in world.state.jobs
    assert {assignment.job_id for assignment in world.assigned()} == {"all", "modest"}


def test_stop_waits_for_what_is_in_hand() -> None:
    world = FleetWorld([GPU])
    world.join("gpu")
    world.submit(shards=1000)
    world.play(1)
    commands = world.send(StopRequested(world.now_s, "j"))
    assert sum(isinstance(command, RevokeAssignment) for command in commands) == 2
    assert "j" not in world.ended
    world.run()
    assert world.ended["j"].state == "stopped"


def test_a_cancelled_job_stays_cancelled() -> None:
    world = FleetWorld([GPU])
    world.join("gpu")
    world.submit(shards=1000)
    world.play(1)
    world.send(StopRequested(world.now_s, "j", cancel=True))
    world.send(StopRequested(world.now_s, "j"))
    world.run()
    assert world.ended["j"].state == "cancelled"


def test_a_draining_replica_ends_what_it_can_and_is_parked() -> None:
    world = FleetWorld([GPU])
    world.join("gpu")
    world.join("gpu")
    world.submit(shards=1000)
    world.play(1)
    world.send(NodeDraining(world.now_s, "node-r0", until_s=world.now_s + 12))
    assert len(world.revoked) == 1  # the second assignment would end too late
    given = len(world.assigned("r0"))
    world.play(30)
    assert len(world.assigned("r0")) == given
    assert "r0" in world.parked
    world.play()
    assert world.ended["j"].state == "completed"
    assert sorted(world.committed["j"]) == list(range(1000))


def late_world(deadline_s: float | None) -> FleetWorld:
    """Two replicas; the first stops answering when all work is handed out."""
    world = FleetWorld([profile("gpu", 100, 200)])
    for _ in range(2):
        world.join("gpu")
    world.stuck.add("r0")
    world.submit(shards=30, objective="throughput", deadline_s=deadline_s)
    for name in list(world.waking):
        world.awake(name)
    return world


def speculated(world: FleetWorld) -> list[RunAssignment]:
    return [assignment for assignment in world.assigned() if assignment.speculative]


def test_a_late_assignment_is_run_again_only_when_the_deadline_asks_for_it() -> None:
    world = late_world(deadline_s=400.0)
    world.play(250)
    assert not speculated(world)  # it may still come
    world.play(400)
    assert {assignment.replica_id for assignment in speculated(world)} == {"r1"}
    assert world.ended["j"].state == "completed"


def test_without_a_deadline_a_silent_replica_delays_a_job_but_does_not_stop_it() -> None:
    world = late_world(deadline_s=None)
    world.play()
    assert world.ended["j"].state == "completed"


def test_a_deadline_that_is_missed_anyway_does_not_keep_the_job_waiting_for_ever() -> None:
    world = late_world(deadline_s=31.0)
    world.play()
    assert world.ended["j"].state == "completed"


def test_when_the_second_attempt_is_lost_there_is_a_third() -> None:
    world = FleetWorld([profile("gpu", 100, 200)])
    for _ in range(3):
        world.join("gpu")
    world.stuck.add("r0")
    world.submit(shards=30, objective="throughput")
    for name in list(world.waking):
        world.awake(name)
    world.play(320)
    twin, *_ = speculated(world)
    world.lose(twin.replica_id, gone=True)
    world.play()
    assert world.ended["j"].state == "completed"


def test_the_loser_of_a_race_gets_other_work_at_once() -> None:
    world = late_world(deadline_s=None)
    world.play(305)
    twin, *_ = speculated(world)
    world.submit("next", shards=1000)
    world.tick(1)
    given = len(world.assigned("r1"))
    world.commit("r0")
    assert twin.assignment_id in world.revoked
    assert [assignment.job_id for assignment in world.assigned("r1")[given:]] == ["next"]


def test_a_second_attempt_keeps_to_the_power_cap() -> None:
    """The late replica drains, so that the plan counts on all power for the other one."""
    frugal = profile("frugal", 100, 100)
    world = FleetWorld([frugal, profile("gpu", 100, 200, faster=((150, 400),))], cap_w=450)
    world.join("frugal")
    world.join("gpu")
    world.stuck.add("r0")
    world.submit(shards=200, deadline_s=150.0)
    for name in list(world.waking):
        world.awake(name)
    world.play(20)
    world.send(NodeDraining(world.now_s, "node-r0"))
    for until_s in range(20, 600, 5):
        world.play(until_s)
        assert world.state.power_w <= 450
    assert speculated(world)
    assert world.ended["j"].state == "completed"


def test_work_done_twice_counts_once() -> None:
    world = FleetWorld([GPU])
    world.join("gpu")
    world.submit(shards=300)
    world.play(1)
    assignment = world.commit("r0", forget=False)
    again = ShardsCommitted(
        world.now_s,
        "r0",
        assignment.assignment_id,
        "j",
        assignment.first,
        assignment.stop,
        world.usage(assignment, 1),
    )
    world.send(again)
    job = world.state.jobs["j"]
    assert job.done.size == assignment.stop - assignment.first
    assert job.images_left == 100 * (300 - job.done.size)
