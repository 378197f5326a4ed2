"""A replica's work: every shard that it is given is answered for once, whatever happens."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import Future
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.actors import worker
from cluster.actors.outcomes import Done, Order, Report, done_of, merged
from cluster.actors.worker import Worker
from cluster.energy import sum_energy
from cluster.errors import Retryable
from cluster.ledger.usage import Outcome
from cluster.pipeline.giving_up import Abandoned
from cluster.pipeline.publisher import Attempt
from cluster.stage_times import StageTimes
from cluster.types import MISSING_ENERGY, Energy, Shard, Workload
from tests.support import jobfactory
from tests.support.effort import examples

JOB = jobfactory.workload(count=600)  # a hundred shards
PREFIX = "0123456789abcdef"


class Runner:
    """Makes nothing. outcome: of attempts, None leaves them to the coordinator. fails: by shard,
    what it raises. held: shards that are published when the test wants it."""

    trouble = ""
    times = StageTimes(2.0, 1.0)

    def __init__(
        self,
        outcome: Outcome | None = "won",
        fails: dict[int, Exception] | None = None,
        held: Collection[int] = (),
    ) -> None:
        self._outcome, self._fails = outcome, fails or {}
        self.begun: list[int] = []
        self.held: dict[int, Future[Attempt]] = {shard: Future() for shard in held}
        self.attempts: dict[int, str] = {}
        self.gate = threading.Event()  # for the device
        self.gate.set()
        self.generating = threading.Event()
        self.abandoned: list[tuple[list[str], float]] = []

    def start(
        self, shard: Shard, attempt_id: str, on_images: Callable[[int], None]
    ) -> Future[Attempt]:
        self.begun.append(shard.index)
        self.attempts[shard.index] = attempt_id
        on_images(shard.rows)
        self.generating.set()
        self.gate.wait()
        if self.abandoned:
            raise Abandoned
        if shard.index in self._fails:
            raise self._fails[shard.index]
        if shard.index in self.held:
            return self.held[shard.index]
        done: Future[Attempt] = Future()
        done.set_result(self.attempt(shard.index))
        return done

    def attempt(self, shard: int) -> Attempt:
        record = jobfactory.record_of(
            JOB, JOB.shard(shard), b"", attempt_id=self.attempts[shard], generate_s=0.25
        )
        return Attempt(record, self._outcome)

    def abandon(self, attempt_ids: Collection[str], within_s: float) -> None:
        self.abandoned.append((list(attempt_ids), within_s))


class World:
    def __init__(self, runner: Runner) -> None:
        self.settled: dict[str, Outcome] = {}
        self.runner = runner
        self.worker = Worker(lambda _: runner, self.settled.update)
        self.reports: list[Report] = []

    def assign(self, number: int, first: int, stop: int, job: Workload = JOB) -> None:
        self.worker.assign(Order(number, job, first, stop, PREFIX))

    def until(self, answered: int) -> list[Report]:
        """Its reports until so many shards are answered for."""
        while sum(self.answered().values()) < answered:
            self.reports.append(self.worker.report(0.01))
        return self.reports

    def answered(self) -> Counter[int]:
        """How often each shard was."""
        shards: Counter[int] = Counter()
        for report in self.reports:
            for run in (*report.done, *report.failed):
                shards.update(range(run.first, run.stop))
            shards.update(record.shard for _, record in report.uncommitted)
        return shards


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, somebody asks for reports often enough."""
    monkeypatch.setattr(worker, "UNASKED_S", math.inf)


def test_a_replica_that_nobody_asks_any_more_begins_no_shard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(Runner())
    world.runner.gate.clear()
    world.assign(1, 0, 50)
    world.runner.generating.wait()
    monkeypatch.setattr(worker, "UNASKED_S", -1.0)
    world.runner.gate.set()
    while not world.settled:
        pass
    time.sleep(0.05)
    assert world.runner.begun == [0]
    world.until(50)  # it was only slow to ask
    assert world.runner.begun == list(range(50))


def test_shards_are_made_in_order_and_reported_as_runs() -> None:
    world = World(Runner())
    world.runner.gate.clear()
    world.assign(1, 3, 40)
    world.assign(2, 40, 60)
    world.runner.gate.set()
    reports = world.until(57)
    assert world.runner.begun == list(range(3, 60))
    assert world.answered() == dict.fromkeys(range(3, 60), 1)
    done = [done for report in reports for done in report.done]
    assert all(d.won and d.images == JOB.shard_images * (d.stop - d.first) for d in done)
    assert sum(d.generate_s for d in done) == 57 * 0.25
    assert len(set(world.settled)) == 57
    assert set(world.settled.values()) == {"won"}
    assert all(attempt.startswith(PREFIX) for attempt in world.settled)


def test_orders_that_overtake_each_other_are_made_in_order() -> None:
    world = World(Runner())
    world.runner.gate.clear()
    world.assign(1, 0, 2)
    world.runner.generating.wait()
    world.assign(3, 4, 6)
    world.assign(2, 2, 4)
    world.runner.gate.set()
    world.until(6)
    assert world.runner.begun == list(range(6))


@pytest.mark.parametrize(
    ("error", "fatal", "said"),
    [
        (ValueError("a hole in it"), False, "ValueError: a hole in it"),
        (Retryable("503"), True, "the store stayed away for 60 s: 503"),
    ],
)
def test_a_shard_that_fails_takes_no_other_along(error: Exception, fatal: bool, said: str) -> None:
    world = World(Runner(fails={2: error}))
    world.assign(1, 0, 5)
    reports = world.until(5)
    ((failed,),) = [report.failed for report in reports if report.failed]
    assert (failed.first, failed.stop) == (2, 3)
    assert (failed.failure.reason, failed.failure.fatal) == (said, fatal)
    assert Counter(world.settled.values()) == {"won": 4, "lost": 1}


def test_what_is_given_up_is_what_has_not_begun_and_what_the_runner_gives_up() -> None:
    world = World(Runner())
    world.runner.gate.clear()
    world.assign(1, 0, 1000)
    world.assign(2, 1000, 1002)
    world.runner.generating.wait()
    world.worker.abandon(1, within_s=3.0)
    assert world.runner.abandoned == [([world.runner.attempts[0]], 3.0)]
    first = world.worker.report(3600.0)  # somebody waits for it
    world.reports.append(first)
    assert [(f.first, f.stop, f.failure.abandoned) for f in first.failed] == [(1, 1000, True)]
    assert first.under_way["job"].images == JOB.shard_images
    world.runner.gate.set()
    world.until(1002)
    assert world.runner.begun == [0, 1000, 1001]
    assert set(world.settled.values()) == {"lost"}


def test_an_assignment_that_is_given_up_before_it_came_is_not_begun() -> None:
    world = World(Runner())
    world.worker.abandon(1)
    world.assign(1, 0, 4)
    world.until(4)
    assert world.runner.begun == []
    world.worker.abandon(1)  # again, too late to matter
    world.assign(2, 4, 6)
    world.until(6)
    assert world.runner.begun == [4, 5]


def test_what_the_coordinator_is_to_commit_is_settled_there() -> None:
    world = World(Runner(outcome=None))
    world.assign(1, 0, 3)
    reports = world.until(3)
    records = [record for report in reports for _, record in report.uncommitted]
    assert [record.shard for record in records] == [0, 1, 2]
    assert world.settled == {}


def test_images_are_under_way_until_their_shard_is_reported() -> None:
    world = World(Runner(held=[0, 1]))
    world.assign(1, 0, 2)
    while len(world.runner.begun) < 2 or not world.runner.attempts.get(1):
        pass
    before = world.worker.report(0.0)
    assert before.under_way["job"].images == 2 * JOB.shard_images
    assert before.under_way["job"].times == world.runner.times
    assert before.done == ()
    for shard in (1, 0):  # the later one first
        world.runner.held[shard].set_result(world.runner.attempt(shard))
    (after,) = world.until(2)
    assert after.under_way == {}
    ((first, stop),) = [(done.first, done.stop) for done in after.done]
    assert (first, stop) == (0, 2)


ENERGIES = st.sampled_from(
    [
        MISSING_ENERGY,
        Energy(energy_mj=7, quality="measured_counter", method="a"),
        Energy(energy_mj=5, quality="measured_counter", method="b"),
        jobfactory.ESTIMATE,
    ]
)


@settings(max_examples=examples(300))
@given(
    st.lists(
        st.tuples(st.integers(1, 2), st.integers(0, 30), st.booleans(), ENERGIES),
        unique_by=lambda part: part[:2],
    )
)
def test_merging_changes_no_sum_and_hides_no_unknown(
    parts: list[tuple[int, int, bool, Energy]],
) -> None:
    singles = []
    for number, shard, won, energy in parts:
        record = jobfactory.record_of(JOB, JOB.shard(shard), b"", energy)
        singles.append(done_of(number, record, "won" if won else "lost"))
    runs = merged(singles)
    for quality in ("missing", "measured_counter", "estimated"):
        one, other = (
            sum_energy(d.energy for d in some if d.won and d.energy.quality == quality)
            for some in (singles, runs)
        )
        assert one == other
    assert _shards(singles) == _shards(runs)
    assert sum(d.images for d in singles) == sum(d.images for d in runs)
    for one, other in pairwise(runs):
        alike = (one.assignment_id, one.stop, one.won, one.energy.quality)
        assert alike != (other.assignment_id, other.first, other.won, other.energy.quality)


def _shards(runs: Collection[Done]) -> Counter[tuple[int, int, bool, str]]:
    return Counter(
        (run.assignment_id, shard, run.won, run.energy.quality)
        for run in runs
        for shard in range(run.first, run.stop)
    )
