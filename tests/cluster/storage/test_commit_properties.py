"""Many writers race, retry, crash and lose replies: every shard is committed once, or not at all.

The writers' steps are interleaved in an order that hypothesis chooses, one store call at a time,
so that a failing race shrinks and replays.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.clock import utc_now
from cluster.energy import ZERO_ENERGY
from cluster.errors import Fatal, Retryable
from cluster.storage.backoff import Backoff
from cluster.storage.commit import (
    Outcome,
    commit,
    committed_shards,
    ended_state,
    read_commits,
    reopen,
)
from cluster.storage.finish import finalise
from cluster.storage.layout import JobLayout
from cluster.storage.local import LocalStore
from cluster.storage.object_store import ObjectStore, StoreConfig
from cluster.types import CommitRecord, DataObject, JobState, Manifest
from tests.support.effort import examples
from tests.support.faulty_store import FaultRates, FaultyStore
from tests.support.interleave import Interleaver

JOB = "j"
LAYOUT = JobLayout(JOB)
QUICK = Backoff(attempts=3, sleep=lambda _: None)
MANY = settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

rate = st.sampled_from([0.0, 0.1, 0.3, 0.6])
fault_rates = st.builds(
    FaultRates, before=rate, after=rate, late=rate, replayed=rate, slow=st.just(1.0)
)


class Crash(BaseException):
    """A process dies: no handler of the code under test sees it."""


@dataclass
class Attempt:
    """One attempt at a shard by a writer, and the result that it got."""

    shard: int
    name: str
    outcome: Outcome | None = None

    def record(self) -> CommitRecord:
        data = self.name.encode()
        key = LAYOUT.images(self.shard, self.name)
        return CommitRecord(
            job_id=JOB,
            shard=self.shard,
            start=self.shard,
            stop=self.shard + 1,
            attempt_id=self.name,
            token=f"token of {self.name}",
            objects=(
                DataObject(
                    key=key, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), rows=1
                ),
            ),
            rows=1,
            energy=ZERO_ENERGY,
            model_rev="r",
            hardware="cpu",
            host_name="h",
            generate_s=0.0,
            committed_at=utc_now(),
        )

    def run(self, store: ObjectStore) -> None:
        """What a replica does: write the data, then commit."""
        record = self.record()
        with suppress(Retryable, Crash):  # then it gets no result
            store.put(record.objects[0].key, self.name.encode())
            self.outcome = commit(store, record, backoff=QUICK)


@dataclass
class World:
    """A store in memory, and writers whose calls meet faults, crashes and each other."""

    directory: Path
    data: st.DataObject
    rates: FaultRates
    crash: float = 0.0
    attempts: list[Attempt] = field(default_factory=list)

    def __post_init__(self) -> None:
        shutil.rmtree(self.directory)
        self.directory.mkdir()
        self.inner = LocalStore(StoreConfig(self.directory.as_uri()))
        self.races = Interleaver(lambda alive: self.data.draw(st.integers(0, alive - 1)))
        seed = self.data.draw(st.integers(0, 2**32), label="seed")
        self.crashes = random.Random(seed)  # one task runs at a time: the same order each time
        self.faulty = FaultyStore(self.inner, seed, self.rates, on_slow=self.on_call)

    def on_call(self, verb: str, key: str) -> None:
        self.races.step()
        if self.crashes.random() < self.crash:
            raise Crash(f"before {verb} {key}")

    def attempt(self, shard: int, store: ObjectStore | None = None) -> Callable[[], None]:
        attempt = Attempt(shard, f"a{len(self.attempts)}")
        self.attempts.append(attempt)
        return lambda: attempt.run(store or self.faulty)

    def check(self) -> None:
        """What must hold at any time."""
        commits = read_commits(self.inner, JOB)
        objects = {info.key for info in self.inner.list(LAYOUT.attempts)}
        for record in commits.values():
            assert {o.key for o in record.objects} <= objects, "a commit names what is gone"
        for attempt in self.attempts:
            recorded = commits[attempt.shard].attempt_id if attempt.shard in commits else None
            if attempt.outcome == "won":
                assert recorded == attempt.name
            elif attempt.outcome == "lost":
                assert recorded not in (None, attempt.name)
        assert set(commits) == committed_shards(self.inner, JOB)

    def objects(self) -> set[str]:
        return {info.key for info in self.inner.list(LAYOUT.attempts)}

    def vouched(self) -> set[str]:
        return {o.key for r in read_commits(self.inner, JOB).values() for o in r.objects}


@MANY
@given(data=st.data(), rates=fault_rates, crash=st.sampled_from([0.0, 0.1]))
def test_one_attempt_a_shard_wins_and_everyone_is_told_the_truth(
    memory_dir: Path, data: st.DataObject, rates: FaultRates, crash: float
) -> None:
    world = World(memory_dir, data, rates, crash)
    shards = data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=5), label="shards")
    world.races.run([world.attempt(shard) for shard in shards])
    world.faulty.settle()
    world.check()
    for shard in set(shards):
        outcomes = [a.outcome for a in world.attempts if a.shard == shard]
        assert outcomes.count("won") <= 1
        if None not in outcomes:
            assert outcomes.count("won") == 1


@MANY
@given(data=st.data())
def test_without_faults_every_race_has_one_winner(memory_dir: Path, data: st.DataObject) -> None:
    world = World(memory_dir, data, FaultRates(slow=1.0))
    world.races.run([world.attempt(0) for _ in range(4)])
    assert sorted(a.outcome or "" for a in world.attempts) == ["lost", "lost", "lost", "won"]
    world.check()
    assert world.objects() == world.vouched()  # the losers tidied up after themselves


@MANY
@given(data=st.data(), rates=fault_rates, crash=st.sampled_from([0.0, 0.1]))
def test_jobs_ended_at_any_moment_resume_and_complete(
    memory_dir: Path, data: st.DataObject, rates: FaultRates, crash: float
) -> None:
    world = World(memory_dir, data, rates, crash)

    # A coordinator that gives up while attempts still run, and may itself crash.
    own = FaultyStore(world.inner, world.crashes.getrandbits(32), rates, on_slow=world.on_call)

    def end() -> None:
        with suppress(Retryable, Crash):
            finalise(own, JOB, "cancelled", backoff=QUICK)

    world.races.run([*(world.attempt(shard) for shard in (0, 0, 1, 2)), end])
    own.settle()
    world.check()

    # The next run meets no faults but the first one's delayed writes, which land at any moment.
    reopen(world.inner, JOB)
    assert ended_state(world.inner, JOB) is None
    missing = {0, 1, 2} - committed_shards(world.inner, JOB)
    calm = FaultyStore(world.inner, 0, FaultRates(slow=1.0), on_slow=world.races.step)
    again = [world.attempt(shard, calm) for shard in missing for _ in range(2)]
    world.races.run([*again, world.faulty.settle])
    world.check()
    manifest = finalise(world.inner, JOB, "completed", shards=3)
    assert [record.shard for record in manifest.commits] == [0, 1, 2]
    assert ended_state(world.inner, JOB) == "completed"
    assert world.objects() == world.vouched()


@MANY
@given(data=st.data(), rates=fault_rates)
def test_racing_finalisers_agree(memory_dir: Path, data: st.DataObject, rates: FaultRates) -> None:
    world = World(memory_dir, data, FaultRates())
    for shard in range(2):
        world.attempt(shard)()
    world.inner.put(LAYOUT.images(0, "zombie"), b"late")
    world.faulty = FaultyStore(world.inner, 0, rates, on_slow=world.races.step)
    results: list[Manifest] = []

    def end(state: JobState) -> None:
        with suppress(Retryable):
            results.append(finalise(world.faulty, JOB, state, backoff=QUICK))

    world.races.run([lambda: end("completed"), lambda: end("cancelled"), lambda: end("failed")])
    world.faulty.settle()
    final = finalise(world.inner, JOB, "completed")
    assert all(manifest == final for manifest in results)
    assert ended_state(world.inner, JOB) == final.state
    assert world.objects() == world.vouched()


@MANY
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_a_truncated_record_is_never_taken_for_an_answer(
    memory_dir: Path, data: st.DataObject, seed: int
) -> None:
    world = World(memory_dir, data, FaultRates())
    faulty = FaultyStore(world.inner, seed, FaultRates(after=0.5, truncated=0.5))
    for name in ("a", "b"):
        attempt = Attempt(0, name)
        world.attempts.append(attempt)
        with suppress(Fatal):  # the record read back makes no sense: no outcome is claimed
            attempt.run(faulty)
    world.check()
