"""Decisions of the scheduler that a user would notice."""

from __future__ import annotations

from cluster.scheduler.commands import AbandonShards, Finish, RunShard, SpawnReplica
from cluster.scheduler.events import (
    ReplicaLost,
    ReplicaReady,
    ShardCommitted,
    ShardFailed,
    Started,
    StopRequested,
)
from cluster.scheduler.state import MAX_ATTEMPTS, MAX_FRUITLESS_LOSSES, SchedulerState


def started(num_shards: int, replicas: int, committed: tuple[int, ...] = ()) -> SchedulerState:
    state = SchedulerState(num_shards, replicas, committed)
    state.handle(Started())
    return state


def test_shards_go_out_in_order_one_to_each_replica_before_seconds() -> None:
    state = SchedulerState(6, 2)
    assert state.handle(Started()) == [SpawnReplica("replica-0"), SpawnReplica("replica-1")]
    assert state.handle(ReplicaReady("replica-0")) == [
        RunShard("replica-0", 0, 1),
        RunShard("replica-0", 1, 1),
    ]
    assert state.handle(ReplicaReady("replica-1")) == [
        RunShard("replica-1", 2, 1),
        RunShard("replica-1", 3, 1),
    ]


def test_resume_runs_only_what_is_not_committed() -> None:
    state = started(4, 1, committed=(0, 2))
    assert state.handle(ReplicaReady("replica-0")) == [
        RunShard("replica-0", 1, 1),
        RunShard("replica-0", 3, 1),
    ]
    state.handle(ShardCommitted("replica-0", 1))
    assert state.handle(ShardCommitted("replica-0", 3)) == [Finish("completed")]


def test_a_finished_job_needs_no_replica() -> None:
    assert SchedulerState(2, 3, (0, 1)).handle(Started()) == [Finish("completed")]


def test_no_more_replicas_than_shards_are_started() -> None:
    assert SchedulerState(1, 8).handle(Started()) == [SpawnReplica("replica-0")]


def test_a_lost_replica_is_replaced_and_its_shards_are_run_again() -> None:
    state = started(3, 1)
    state.handle(ReplicaReady("replica-0"))
    assert state.handle(ReplicaLost("replica-0", "killed")) == [SpawnReplica("replica-1")]
    assert state.handle(ReplicaReady("replica-1")) == [
        RunShard("replica-1", 0, 2),
        RunShard("replica-1", 1, 1),  # had only waited behind shard 0
    ]


def test_when_every_replica_dies_the_job_fails_with_the_reason() -> None:
    state = started(5, 1)
    for loss in range(MAX_FRUITLESS_LOSSES):
        commands = state.handle(ReplicaLost(f"replica-{loss}", "out of memory"))
        assert commands == [SpawnReplica(f"replica-{loss + 1}")]
    (finish,) = state.handle(ReplicaLost(f"replica-{MAX_FRUITLESS_LOSSES}", "out of memory"))
    assert finish == Finish("failed", "no replica is left; the last loss: out of memory")


def test_a_shard_that_always_fails_ends_the_job_naming_it() -> None:
    state = started(1, 1)
    (command,) = state.handle(ReplicaReady("replica-0"))
    for attempt in range(1, MAX_ATTEMPTS):
        assert command == RunShard("replica-0", 0, attempt)
        (command,) = state.handle(ShardFailed("replica-0", 0, "disk full"))
    (finish,) = state.handle(ShardFailed("replica-0", 0, "disk full"))
    assert isinstance(finish, Finish)
    assert finish.state == "failed"
    assert "shard 0" in finish.reason
    assert "disk full" in finish.reason


def test_a_fatal_failure_ends_the_job_at_once() -> None:
    state = started(4, 1)
    state.handle(ReplicaReady("replica-0"))
    assert state.handle(ShardFailed("replica-0", 0, "wrong model", fatal=True)) == [
        Finish("failed", "wrong model")
    ]


def test_stop_waits_for_what_is_in_hand() -> None:
    state = started(9, 1)
    state.handle(ReplicaReady("replica-0"))
    assert state.handle(StopRequested()) == [AbandonShards()]
    assert state.handle(ShardCommitted("replica-0", 0)) == []
    (finish,) = state.handle(ShardFailed("replica-0", 1, "abandoned"))
    assert isinstance(finish, Finish)
    assert finish.state == "stopped"


def test_memory_does_not_grow_with_the_job() -> None:
    state = started(10**12, 1)
    first = state.handle(ReplicaReady("replica-0"))
    assert first == [RunShard("replica-0", 0, 1), RunShard("replica-0", 1, 1)]
