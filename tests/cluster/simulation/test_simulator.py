"""The virtual fleet: what devices do, what they draw, and what a scheduler may not ask of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.scenario.faults import Faults
from cluster.scheduler import commands, events
from cluster.scheduler.commands import Command
from cluster.scheduler.events import Event
from cluster.scheduler.request import OperatingPoint
from cluster.simulation.baselines import BASELINES
from cluster.simulation.books import InvalidCommand, SimulationStuck
from cluster.simulation.simulator import simulate
from tests.support.effort import examples
from tests.support.simulated import MODEL, Recorder, Scripted, baseline, fleet, hardware, job

POINT = OperatingPoint(64)
TWO = fleet(hardware("fast", 2, 100.0), hardware("slow", 1, 10.0))


def wake_then(after: Sequence[Command]) -> Scripted:
    """Wakes the one device, then does this when it is awake, and finishes what is committed."""

    def answer(event: Event) -> Sequence[Command]:
        if isinstance(event, events.ReplicaJoined):
            return [commands.WakeReplica(event.replica_id, MODEL, POINT)]
        if isinstance(event, events.ReplicaAwake):
            return after
        if isinstance(event, events.ShardsCommitted):
            return [commands.FinishJob(event.job_id, "completed")]
        return []

    return Scripted(answer)


def assignment(first: int = 0, stop: int = 100, **changes: object) -> commands.RunAssignment:
    values = {"assignment_id": 1, "replica_id": "one-0/0", "job_id": "a", "point": POINT, **changes}
    return commands.RunAssignment(first=first, stop=stop, **values)  # type: ignore[arg-type]


def test_each_joule_of_a_simple_day_is_where_it_belongs() -> None:
    # 10 s of loading at 50 W, 10 s of work at 100 W, 80 s warm at 20 W
    spec = fleet(hardware("one"))
    result = simulate(spec, [job("a", 0.0, 1000)], wake_then([assignment()]), horizon_s=100.0)
    assert result.bucket_j("overhead") == pytest.approx(500)
    assert result.bucket_j("job") == pytest.approx(1000)
    assert result.bucket_j("idle") == pytest.approx(1600)
    assert (result.bucket_j("wasted"), result.bucket_j("exploration")) == (0, 0)
    assert result.images == 1000
    assert result.makespan_s == pytest.approx(20)
    assert result.utilisation == pytest.approx(0.1)
    assert result.peak_w == 100


def test_probes_are_exploration() -> None:
    spec = fleet(hardware("one"))
    probing = wake_then([assignment(probe=True)])
    result = simulate(spec, [job("a", 0.0, 1000)], probing, horizon_s=100.0)
    assert result.bucket_j("exploration") == pytest.approx(1000)
    assert result.bucket_j("job") == 0
    assert result.probed_images == 1000


def test_parked_draw_is_told_apart() -> None:
    spec = fleet(hardware("one", parked_w=15.0))
    result = simulate(spec, [job("a", 0.0, 1000)], wake_then([assignment()]), horizon_s=100.0)
    assert result.bucket_j("job") == pytest.approx(850)
    assert result.parked_j == pytest.approx(1500)


WORLDS = st.builds(
    Faults,
    node_losses=st.sampled_from([0.0, 200.0]),
    repair_s=st.just(100.0),
    crashes=st.sampled_from([0.0, 300.0]),
    silences=st.sampled_from([0.0, 300.0]),
    straggler_share=st.sampled_from([0.0, 0.2]),
    drift_per_day=st.sampled_from([0.0, 0.5]),
)


@settings(max_examples=examples(40))
@given(st.sampled_from(sorted(BASELINES)), WORLDS, st.integers(0, 2**32))
def test_buckets_sum_to_the_power_over_time_and_runs_repeat(
    name: str, faults: Faults, seed: int
) -> None:
    jobs = [job(f"j{i}", 200.0 * i, 3000 * (i + 1)) for i in range(5)]

    def run() -> tuple[object, ...]:
        result = simulate(
            TWO, jobs, baseline(name, TWO), faults=faults, seed=seed, horizon_s=2000.0
        )
        assert result.energy_j == pytest.approx(result.metered_j, rel=1e-9)
        assert result.images == sum(arrival.job.images for arrival in jobs)
        assert min(min(parts.values()) for parts in result.energy_by_hardware_j.values()) >= 0
        done = tuple(book.done_s for book in result.jobs)
        return result.energy_by_hardware_j, done, result.events, result.watts

    assert run() == run()


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ([assignment(stop=101)], "shards 0 to 99"),
        ([assignment(job_id="b")], "no job 'b'"),
        ([assignment(replica_id="two")], "no replica 'two'"),
        ([assignment(point=OperatingPoint(7))], "no such operating point"),
        ([assignment(0, 60), assignment(50, 70, assignment_id=2)], "another lease has"),
        ([assignment(0, 50), assignment(50, 70)], "lease id is taken"),
        ([assignment(), commands.ParkReplica("one-0/0")], "has a lease"),
        ([commands.WakeReplica("one-0/0", MODEL, POINT)], "awake"),
        ([commands.ParkReplica("one-0/0"), assignment()], "parking"),
        ([commands.FinishJob("a", "completed")], "not committed"),
    ],
)
def test_what_cannot_be_is_refused_at_once(asked: list[Command], why: str) -> None:
    with pytest.raises(InvalidCommand, match=why):
        simulate(fleet(hardware("one")), [job("a", 0.0, 1000)], wake_then(asked))


def test_leasing_a_parked_replica_is_refused() -> None:
    eager = Scripted(lambda e: [assignment()] if isinstance(e, events.JobSubmitted) else [])
    with pytest.raises(InvalidCommand, match="parked"):
        simulate(fleet(hardware("one")), [job("a", 0.0, 1000)], eager)


def test_a_scheduler_that_waits_for_ever_is_told_of() -> None:
    with pytest.raises(SimulationStuck, match="'a'"):
        simulate(TWO, [job("a", 0.0, 1000)], Scripted(lambda _: []))


def test_a_scheduler_that_only_looks_busy_is_given_up() -> None:
    ticking = Scripted(lambda event: [commands.RemindMe(event.at_s + 3600.0)])
    result = simulate(TWO, [job("a", 0.0, 1000)], ticking)
    assert (result.missed, result.images, result.energy_j) == (1, 0, 0)


def test_a_later_reminder_replaces_an_earlier_one() -> None:
    def answer(event: Event) -> list[Command]:
        ticks.extend([event.at_s] if isinstance(event, events.Tick) else [])
        if isinstance(event, events.JobSubmitted):
            return [commands.RemindMe(50.0), commands.RemindMe(80.0)]
        return [commands.FinishJob("a", "stopped")] if ticks else []

    ticks: list[float] = []
    simulate(TWO, [job("a", 0.0, 1000)], Scripted(answer), horizon_s=100.0)
    assert ticks == [80.0]


def test_a_revoked_assignment_keeps_what_is_made_and_fails_the_rest() -> None:
    spec = fleet(hardware("one"))

    def answer(event: Event) -> list[Command]:
        match event:
            case events.ReplicaJoined():
                return [commands.WakeReplica(event.replica_id, MODEL, POINT)]
            case events.ReplicaAwake():
                return [assignment(0, 100), commands.RemindMe(event.at_s + 0.25)]
            case events.Tick():  # 25 images are made: two shards of ten, and half of one
                return [commands.RevokeAssignment(1, "one-0/0", "a")]
            case events.ShardFailed(shard=99):
                return [commands.FinishJob("a", "stopped")]
        return []

    seen = Recorder(Scripted(answer))
    result = simulate(spec, [job("a", 0.0, 1000)], seen, horizon_s=100.0)
    committed = [e for e in seen.events if isinstance(e, events.ShardsCommitted)]
    failed = [e for e in seen.events if isinstance(e, events.ShardFailed)]
    assert [(e.first, e.stop) for e in committed] == [(0, 2)]
    assert committed[0].usage is not None
    assert committed[0].usage.images == 20
    assert [e.shard for e in failed] == list(range(2, 100))
    assert all(e.revoked for e in failed)
    assert result.bucket_j("job") == pytest.approx(20)
    assert result.bucket_j("wasted") == pytest.approx(5)


def test_the_loser_of_two_attempts_is_wasted() -> None:
    spec = fleet(hardware("one", 2))

    def answer(event: Event) -> list[Command]:
        match event:
            case events.ReplicaJoined():
                return [commands.WakeReplica(event.replica_id, MODEL, POINT)]
            case events.ReplicaAwake(replica_id="one-1/1"):
                twin = assignment(assignment_id=2, replica_id="one-1/1", speculative=True)
                return [assignment(), twin]
            case events.ShardsCommitted(assignment_id=2):
                return [commands.FinishJob("a", "completed")]
        return []

    result = simulate(spec, [job("a", 0.0, 1000)], Scripted(answer), horizon_s=100.0)
    assert result.images == 1000
    assert result.bucket_j("job") == pytest.approx(1000)
    assert result.bucket_j("wasted") == pytest.approx(1000)
