"""What goes wrong on purpose, and what is reported to the scheduler."""

from __future__ import annotations

import pytest

from cluster.scenario.faults import Faults, believed
from cluster.scenario.fleet import load_fleet
from cluster.scheduler import events
from cluster.simulation.simulator import simulate
from tests.support.simulated import Recorder, baseline, fleet, hardware, job

ONE = fleet(hardware("one"))
DAY = [job("a", 0.0, 500_000, slack_s=None)]


def run(faults: Faults, seed: int = 1) -> tuple[Recorder, float, float]:
    scheduler = Recorder(baseline("least-loaded-work", ONE))
    result = simulate(ONE, DAY, scheduler, faults=faults, seed=seed, horizon_s=20_000.0)
    assert result.images == 500_000
    return scheduler, result.bucket_j("wasted"), result.makespan_s


def kinds(scheduler: Recorder, kind: type) -> int:
    return sum(isinstance(event, kind) for event in scheduler.events)


def test_nothing_is_wasted_where_nothing_fails() -> None:
    scheduler, wasted_j, makespan_s = run(Faults())
    assert wasted_j == 0
    assert makespan_s == pytest.approx(5010)
    assert kinds(scheduler, events.ReplicaLost) == 0


def test_a_crash_commits_what_was_done_and_loses_the_rest() -> None:
    scheduler, wasted_j, _ = run(Faults(crashes=40.0))
    lost = [i for i, e in enumerate(scheduler.events) if isinstance(e, events.ReplicaLost)]
    assert lost
    assert not any(scheduler.events[i].gone for i in lost)  # type: ignore[union-attr]
    event = scheduler.events[lost[0] - 1]
    assert isinstance(event, events.ShardsCommitted)  # in the midst of an assignment
    assert event.at_s == scheduler.events[lost[0]].at_s
    # a shard in hand and a load begun are all that a crash can cost
    assert 0 < wasted_j <= len(lost) * (0.1 * 100 + 500)


def test_a_silent_replica_is_told_of_after_the_timeout_and_draws_power_until_then() -> None:
    faults = Faults(silences=40.0, silent_s=50.0)
    scheduler, wasted_j, _ = run(faults)
    times = {at_s for at_s, _, _ in faults.times(["one-0"], 20_000.0, 1)}
    lost = [e.at_s for e in scheduler.events if isinstance(e, events.ReplicaLost)]
    assert lost
    assert all(min(abs(at_s - 50.0 - t) for t in times) < 1e-6 for at_s in lost)
    assert wasted_j >= len(lost) * 50.0 * 20.0


def test_a_lost_node_comes_back_as_another_replica() -> None:
    scheduler, _, _ = run(Faults(node_losses=20.0, repair_s=300.0))
    lost = [e for e in scheduler.events if isinstance(e, events.NodeLost)]
    joined = [e for e in scheduler.events if isinstance(e, events.ReplicaJoined)]
    assert lost
    assert [e.at_s for e in joined[1:]] == pytest.approx([e.at_s + 300.0 for e in lost])
    assert len({e.replica_id for e in joined}) == len(joined)
    assert {e.node_id for e in joined} == {"one-0"}


def test_stragglers_and_drift_take_longer() -> None:
    plain = run(Faults())[2]
    assert run(Faults(straggler_share=0.3))[2] > 1.5 * plain
    assert run(Faults(drift_per_day=0.9))[2] > plain


def test_failures_are_the_same_whoever_schedules() -> None:
    faults = Faults(node_losses=3.0, crashes=3.0, silences=3.0)
    nodes = [f"n{i}" for i in range(20)]
    first, second = (list(faults.times(nodes, 86_400.0, 5)) for _ in range(2))
    assert first == second
    assert first != list(faults.times(nodes, 86_400.0, 6))
    assert 120 < len(first) < 240  # 180 are to be expected


def test_beliefs_are_off_by_no_more_than_the_error() -> None:
    truth = list(load_fleet("reference").profiles())
    thought = believed(truth, 0.3, seed=3)
    ratios = [
        t.curve[0].images_per_s / b.curve[0].images_per_s
        for t, b in zip(truth, thought, strict=True)
    ]
    assert all(0.7 <= ratio <= 1.3 for ratio in ratios)
    assert max(ratios) - min(ratios) > 0.2
    assert believed(truth, 0.0, seed=3) == truth
