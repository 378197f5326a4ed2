"""Waking, parking, holding, and the power cap."""

from __future__ import annotations

from cluster.scheduler.commands import ParkReplica, RunAssignment, WakeReplica
from cluster.scheduler.events import CapChanged, NodeDraining
from tests.support.fleetworld import FleetWorld, profile

CLASS = profile("gpu", 100, 200, idle_w=50, load_s=20, load_j=2000)  # patience: 2000 / 50 = 40 s


def parks(world: FleetWorld) -> int:
    return sum(isinstance(command, ParkReplica) for command in world.log)


def test_an_idle_replica_is_parked_once_idling_has_cost_a_start_up() -> None:
    world = FleetWorld([CLASS])
    world.join("gpu")
    world.submit(shards=1)
    world.run()
    world.tick(39.9)
    assert parks(world) == 0
    world.tick(0.2)
    assert parks(world) == 1


def test_where_pauses_are_long_a_replica_is_parked_at_once() -> None:
    world = FleetWorld([CLASS])
    world.join("gpu")
    for number in range(3):
        world.submit(f"j{number}", shards=1)
        world.play(world.now_s + 30.0)
        world.play(world.now_s + 4000)
    before = parks(world)
    world.submit("last", shards=1)
    world.play(world.now_s + 22)
    assert "last" in world.ended
    assert parks(world) == before + 1


def test_idleness_keeps_one_timer_however_often_it_begins() -> None:
    world = FleetWorld([profile("gpu", 100, 200)])  # idles for free: up to an hour
    world.join("gpu")
    for number in range(200):
        world.submit(f"j{number}", shards=1)
        world.play(world.now_s + 3)
    assert len(world.ended) == 200
    assert world.state.core.timers("idle") <= 2


def test_of_replicas_that_join_together_a_dear_one_is_not_woken_in_passing() -> None:
    world = FleetWorld([CLASS, profile("costly", 100, 2000, load_s=20, load_j=2000)])
    world.submit(shards=1000)
    world.now_s = 10.0
    world.join("costly", "gpu")
    world.play()
    assert world.woken() == ["gpu"]


def test_little_work_is_held_and_runs_in_time() -> None:
    world = FleetWorld([CLASS])
    world.join("gpu")
    world.submit(shards=10, deadline_s=1000.0)  # 1000 images: 10 s of work
    world.play(600)
    assert not world.woken()
    assert [notice.reason for notice in world.notices] == [
        "held, so that one start-up serves more images"
    ]
    world.play()
    assert world.ended["j"].state == "completed"
    assert world.now_s < 1100  # it was parked again since
    (done,) = [d.at_s for d in world.state.take_decisions() if d.kind == "park"]
    assert done - 40 <= 1000


def test_without_a_deadline_nothing_is_held() -> None:
    world = FleetWorld([CLASS])
    world.join("gpu")
    world.submit(shards=10)
    assert world.woken() == ["gpu"]


def test_a_second_job_makes_holding_pointless() -> None:
    world = FleetWorld([CLASS])
    world.join("gpu")
    world.submit("held", shards=10, deadline_s=1000.0)
    assert not world.woken()
    world.submit("big", shards=10_000, deadline_s=5000.0)
    world.tick(1)
    assert world.woken() == ["gpu"]


def test_the_cap_bounds_what_is_woken() -> None:
    world = FleetWorld([CLASS], cap_w=450)
    for _ in range(4):
        world.join("gpu")
    world.submit(shards=1000, objective="throughput")
    world.play(100)
    assert len(world.woken()) == 2
    assert world.state.power_w <= 450


def test_after_a_lowered_cap_work_goes_on_with_what_fits() -> None:
    """Replicas that end their assignments above the cap must not idle beside waiting work."""
    world = FleetWorld([profile("gpu", 100, 200)])  # idles for free, so patience is an hour
    for _ in range(2):
        world.join("gpu")
    world.submit(shards=1000, objective="throughput")
    world.play(60)
    assert world.state.power_w == 400
    world.send(CapChanged(world.now_s, 250.0))
    seen = len(world.log)
    world.play(120)
    assert world.state.power_w <= 250
    assert any(isinstance(command, RunAssignment) for command in world.log[seen:])


def test_under_a_lowered_cap_a_replica_falls_back_to_a_slower_point() -> None:
    world = FleetWorld([profile("gpu", 100, 200, faster=((150, 500),))])
    world.join("gpu")
    world.submit(shards=10_000, objective="throughput")
    world.play(60)
    assert world.assigned()[-1].point.power_cap_w == 500
    world.send(CapChanged(world.now_s, 300.0))
    world.play(120)
    assert world.assigned()[-1].point.power_cap_w == 200
    assert world.state.power_w == 200


def test_power_falls_when_the_last_assignment_at_a_hot_point_ends() -> None:
    world = FleetWorld([profile("gpu", 100, 200, faster=((150, 500),))])
    world.join("gpu")
    world.submit("urgent", shards=2, objective="throughput", priority=1)
    world.submit("calm", shards=1)
    world.awake("r0")
    world.tick(1)
    while {assignment.job_id for assignment in world.assignments["r0"]} != {"urgent", "calm"}:
        world.commit("r0")
    assert world.state.power_w == 500
    world.commit("r0")
    assert [assignment.job_id for assignment in world.assignments["r0"]] == ["calm"]
    assert world.state.power_w == 200


def test_a_draining_replica_holds_power_and_work_goes_on_at_a_slower_point() -> None:
    """Until it is gone, the faster point of the plan does not fit under the cap."""
    world = FleetWorld([profile("gpu", 100, 200, faster=((150, 400),))], cap_w=500)
    for _ in range(2):
        world.join("gpu")
    world.submit("slow", shards=10_000)
    for name in list(world.waking):
        world.awake(name)
    world.send(NodeDraining(world.now_s, "node-r0"))
    world.submit("quick", shards=10_000, objective="throughput", priority=1)
    world.tick(1)
    world.commit("r1")
    assert world.assigned("r1")[-1].job_id == "quick"
    assert world.assigned("r1")[-1].point.power_cap_w == 200


def test_a_replica_with_another_model_makes_room() -> None:
    other = profile("gpu", 100, 200, idle_w=50, load_s=20, load_j=2000, model="n")
    world = FleetWorld([CLASS, other])
    world.join("gpu")
    world.submit("first", shards=10)
    world.run()
    world.submit("second", shards=10, model="n")
    world.play(world.now_s + 60)
    assert world.ended["second"].state == "completed"
    assert [c.model for c in world.log if isinstance(c, WakeReplica)] == ["m", "n"]


def test_the_oldest_job_decides_between_models() -> None:
    """A model with new jobs all the time does not keep the only device for ever."""
    world = FleetWorld([profile("gpu", 100, 200), profile("gpu", 100, 200, model="z")])
    world.join("gpu")
    world.submit("a0", shards=20, model="m")
    world.submit("z", shards=20, model="z")
    for number in range(1, 6):
        world.submit(f"a{number}", shards=20, model="m")
        world.play(world.now_s + 20)
    assert "z" in world.ended
