"""Shards that kill replicas, among many that are under way: none is set aside that is innocent."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.scheduler.commands import RunAssignment
from cluster.scheduler.losses import UNDER_WAY_AT_MOST
from cluster.scheduler.policy import Policy
from tests.support.effort import examples
from tests.support.fleetworld import FleetWorld, profile

POLICY = Policy(max_fruitless=1000)  # whether hardware is at fault is not asked here
PROFILES = [profile("gpu", 1000, 500), profile("other", 1000, 400)]


@dataclass
class Pipelines:
    """Replicas with shards behind their devices, some of which kill them.

    poison: by shard, how many more are begun before it kills; 0: on the device. lag: shards
    that are begun and not committed, beside the one on the device. known: how often it is known
    what a device was at, 0 to 1.
    """

    world: FleetWorld
    poison: dict[int, int]
    lag: int
    known: float
    chance: random.Random
    begun: Counter[str] = field(default_factory=Counter)
    deaths: int = 0

    def run(self) -> None:
        """Until the job has ended."""
        world = self.world
        for _ in range(100_000):
            busy = sorted(name for name, own in world.assignments.items() if own)
            if world.waking:
                world.awake(next(iter(world.waking)))
            elif busy:
                self._step(self.chance.choice(busy))
            elif world.parking:
                world.park(next(iter(world.parking)))
            elif world.state.jobs:
                world.tick(1)
            else:
                return
        raise AssertionError(f"it does not end: {self.deaths} deaths")

    def _step(self, name: str) -> None:
        """Begin another shard, or commit the oldest."""
        queue = [s for own in self.world.assignments[name] for s in range(own.first, own.stop)]
        begins = self.begun[name] < len(queue) and self.begun[name] <= self.lag
        if begins:
            self.begun[name] += 1
        begun = queue[: self.begun[name]]
        device = begun[-1] if begins else None
        deadly = any(len(begun) - 1 - at >= self.poison.get(s, 99) for at, s in enumerate(begun))
        if deadly or (device is None and begun[0] in self.poison):
            self.deaths += 1
            self.begun[name] = 0
            known = device is not None and self.chance.random() < self.known
            self.world.lose(name, at_work=("j", device) if known and device is not None else None)
        elif not begins:
            self.world.commit(name, 1)
            self.begun[name] -= 1


@settings(max_examples=examples(400, 30), deadline=None)
@given(
    shards=st.integers(8, 90),
    poison=st.dictionaries(st.integers(0, 89), st.integers(0, 6), max_size=4),
    lag=st.integers(0, UNDER_WAY_AT_MOST),
    replicas=st.lists(st.sampled_from(["gpu", "other"]), min_size=1, max_size=4),
    known=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 2**16),
)
def test_only_deadly_shards_are_set_aside_and_after_few_deaths(
    shards: int, poison: dict[int, int], lag: int, replicas: list[str], known: float, seed: int
) -> None:
    poison = {shard: min(delay, lag) for shard, delay in poison.items() if shard < shards}
    world = FleetWorld(PROFILES, POLICY)
    world.join(*replicas)
    world.submit(shards=shards, objective="throughput")
    pipelines = Pipelines(world, poison, lag, known, random.Random(seed))
    pipelines.run()
    end = world.ended["j"]
    assert {aside.shard for aside in end.set_aside} == set(poison)
    assert set(world.committed["j"]) == set(range(shards)) - set(poison)
    on_device = known == 1.0 and not any(poison.values())
    each = POLICY.max_attempts + (0 if on_device else 1)
    assert pipelines.deaths <= each * len(poison)


@pytest.mark.parametrize("known", [False, True])
def test_a_shard_that_kills_from_behind_the_device_is_found(known: bool) -> None:
    world = FleetWorld(PROFILES, POLICY)
    world.join("gpu")
    world.submit(shards=60, objective="throughput")
    pipelines = Pipelines(world, {17: 3}, 8, float(known), random.Random(0))
    pipelines.run()
    (aside,) = world.ended["j"].set_aside
    assert (aside.shard, aside.attempts) == (17, POLICY.max_attempts)
    assert pipelines.deaths == POLICY.max_attempts + 1


def test_the_shard_on_the_device_is_suspected_and_not_the_first_that_lacks_a_commit() -> None:
    world = FleetWorld(PROFILES, POLICY)
    world.join("gpu")
    world.submit(shards=60, objective="throughput")
    world.awake("r0")
    world.lose("r0", at_work=("j", 5))
    job = world.state.jobs["j"]
    assert job.attempts == {5: 1}
    assert list(job.witnesses) == [(0, 5)], "what it had not begun is above suspicion"


def test_one_loss_of_which_nothing_is_known_makes_no_suspect() -> None:
    world = FleetWorld(PROFILES, POLICY)
    world.join("gpu", "gpu")
    world.submit(shards=1000, objective="throughput")
    for name in list(world.waking):
        world.awake(name)
    world.lose("r0", gone=True, at_work=None)
    assert world.state.jobs["j"].attempts == {}
    world.run()
    assert world.ended["j"].state == "completed"
    assert all(run.stop - run.first > 1 for run in world.assigned("r1")[:3])


def test_a_suspect_has_its_replica_to_itself() -> None:
    world = FleetWorld(PROFILES, POLICY)
    world.join("gpu", "other")
    world.submit(shards=1000, objective="throughput")
    for name in list(world.waking):
        world.awake(name)
    world.lose("r0", gone=True)
    while not any(map(_is_suspect, world.assignments["r1"])):
        world.commit("r1")
    assert len(world.assignments["r1"]) == 1
    world.tick(1)
    assert len(world.assignments["r1"]) == 1
    world.commit("r1")
    assert len(world.assignments["r1"]) == POLICY.assignments
    assert not world.state.jobs["j"].attempts


def _is_suspect(run: RunAssignment) -> bool:
    return (run.first, run.stop) == (0, 1)
