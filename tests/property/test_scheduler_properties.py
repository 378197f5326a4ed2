"""Whatever happens to replicas and shards, no shard is lost, doubled or waited for in vain."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cluster.scheduler.commands import AbandonShards, Command, Finish, RunShard, SpawnReplica
from cluster.scheduler.events import (
    ReplicaLost,
    ReplicaReady,
    ShardCommitted,
    ShardFailed,
    Started,
    StopRequested,
)
from cluster.scheduler.state import LEASES_PER_REPLICA, SchedulerState


class Cluster(RuleBasedStateMachine):
    """Plays replicas against the scheduler, with a store that remembers what was committed."""

    @initialize(
        num_shards=st.integers(1, 12), replicas=st.integers(1, 4), done=st.sets(st.integers(0, 11))
    )
    def start(self, num_shards: int, replicas: int, done: set[int]) -> None:
        self.num_shards = num_shards
        self.committed = {shard for shard in done if shard < num_shards}
        self.state = SchedulerState(num_shards, replicas, self.committed)
        self.starting: set[str] = set()
        self.running: dict[str, list[int]] = {}
        self.zombies: list[tuple[str, int]] = []
        self.finish: Finish | None = None
        self.stopped = False
        self.take(self.state.handle(Started()))

    def take(self, commands: list[Command]) -> None:
        for command in commands:
            assert self.finish is None, "a command after the end"
            match command:
                case SpawnReplica(replica_id):
                    assert replica_id not in self.starting | self.running.keys()
                    self.starting.add(replica_id)
                case RunShard(replica_id, shard, attempt):
                    assert not self.stopped, "new work after a stop"
                    assert shard not in self.committed, "a committed shard is run again"
                    assert all(shard not in shards for shards in self.running.values())
                    assert attempt >= 1
                    self.running[replica_id].append(shard)
                    assert len(self.running[replica_id]) <= LEASES_PER_REPLICA
                case AbandonShards():
                    assert self.stopped
                case Finish():
                    self.finish = command

    def going(self) -> bool:
        return self.finish is None

    def busy(self) -> bool:
        return self.going() and any(self.running.values())

    @precondition(lambda self: self.going() and self.starting)
    @rule(data=st.data())
    def replica_ready(self, data: st.DataObject) -> None:
        replica_id = data.draw(st.sampled_from(sorted(self.starting)))
        self.starting.remove(replica_id)
        self.running[replica_id] = []
        self.take(self.state.handle(ReplicaReady(replica_id)))

    @precondition(lambda self: self.going() and (self.starting or self.running))
    @rule(data=st.data())
    def replica_lost(self, data: st.DataObject) -> None:
        replica_id = data.draw(st.sampled_from(sorted(self.starting | self.running.keys())))
        self.starting.discard(replica_id)
        self.zombies += [(replica_id, shard) for shard in self.running.pop(replica_id, [])]
        self.take(self.state.handle(ReplicaLost(replica_id, "killed")))

    @precondition(busy)
    @rule(data=st.data())
    def shard_committed(self, data: st.DataObject) -> None:
        replica_id = data.draw(st.sampled_from(sorted(r for r, s in self.running.items() if s)))
        shard = self.running[replica_id].pop(0)
        self.committed.add(shard)
        self.take(self.state.handle(ShardCommitted(replica_id, shard)))

    @precondition(busy)
    @rule(data=st.data())
    def shard_failed(self, data: st.DataObject) -> None:
        replica_id = data.draw(st.sampled_from(sorted(r for r, s in self.running.items() if s)))
        shard = self.running[replica_id].pop(0)
        self.take(self.state.handle(ShardFailed(replica_id, shard, "no luck")))

    @precondition(lambda self: self.going() and self.zombies)
    @rule(committed=st.booleans())
    def late_word_from_a_lost_replica(self, committed: bool) -> None:
        replica_id, shard = self.zombies.pop()
        if committed:
            self.committed.add(shard)
            self.take(self.state.handle(ShardCommitted(replica_id, shard)))
        else:
            self.take(self.state.handle(ShardFailed(replica_id, shard, "late")))

    @precondition(going)
    @rule()
    def stop(self) -> None:
        self.stopped = True
        self.take(self.state.handle(StopRequested()))

    @precondition(lambda self: not self.going())
    @rule(shard=st.integers(0, 11))
    def word_after_the_end(self, shard: int) -> None:
        assert self.state.handle(ShardCommitted("replica-0", shard)) == []

    @invariant()
    def state_is_sound(self) -> None:
        if hasattr(self, "state"):
            self.state.validate()

    @invariant()
    def never_stuck(self) -> None:
        """While the job goes on, something is under way that will bring another event."""
        if hasattr(self, "state") and self.going():
            assert self.starting or any(self.running.values())

    @invariant()
    def ends_truthfully(self) -> None:
        if hasattr(self, "state") and self.finish and self.finish.state == "completed":
            assert self.committed == set(range(self.num_shards))
        if hasattr(self, "state") and self.finish and self.finish.state == "failed":
            assert self.finish.reason

    def teardown(self) -> None:
        """A job left to working replicas always completes."""
        if not hasattr(self, "state") or self.stopped:
            return
        for _ in range(10 * self.num_shards + 50):
            if not self.going():
                break
            if self.starting:
                replica_id = self.starting.pop()
                self.running[replica_id] = []
                self.take(self.state.handle(ReplicaReady(replica_id)))
            else:
                replica_id = next(r for r, shards in self.running.items() if shards)
                shard = self.running[replica_id].pop(0)
                self.committed.add(shard)
                self.take(self.state.handle(ShardCommitted(replica_id, shard)))
        assert self.finish is not None


Cluster.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
test_scheduler = Cluster.TestCase
