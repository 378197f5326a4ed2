"""The job service, whatever its store does and whoever dies: nothing acknowledged is lost, one key
is one job, a cancel is not overruled, an end is the end, and no state follows where it may not."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cluster.errors import Retryable
from cluster.states import NEXT_SERVICE_STATES, JobState
from cluster.storage.chunks import Chunks
from cluster.storage.servers import SILENCE_S
from cluster.storage.summaries import job_ids, load_job
from jobs.service.api import Conflict
from jobs.service.core import StoreService
from jobs.service.reading import find_record
from jobs.service.views import JobFilter
from jobs.spec import JobSpec
from tests.support.effort import examples
from tests.support.fake_server import Clock, FakeServer, without_models
from tests.support.faulty_store import FaultRates, FaultyStore
from tests.support.memory_store import MemoryStore

KEYS = ("a", "b", "c")
RATES = FaultRates(before=0.02, after=0.05, late=0.03, replayed=0.2)
SETTLES_AFTER = 30  # looks at the jobs
SETTLED = 60  # steps in which a job ends once nothing fails any more


def spec_of(key: str) -> JobSpec:
    return JobSpec(count=3, shard_images=1, labels={"key": key})


class Died(BaseException):
    """The caller's process was killed."""


class Killing(MemoryStore):
    """A store whose caller dies at its n-th write from now on: just before it, or just after."""

    at: int | None = None
    after = False

    def put(self, key: str, data: bytes | Chunks) -> None:
        self._write(lambda: super(Killing, self).put(key, data))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if key in self.objects:
            return False
        self.put(key, data)
        return True

    def delete(self, key: str) -> None:
        self._write(lambda: super(Killing, self).delete(key))

    def _write(self, effect: Callable[[], None]) -> None:
        self.at = None if self.at is None else self.at - 1
        if self.at != 0 or self.after:
            effect()
        if self.at == 0:
            self.at = None
            raise Died


class ServiceLife(RuleBasedStateMachine):
    """Users by a store that fails, servers that come and go, and an onlooker who sees all."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        without_models(self.patch)
        ids = (f"job-{number:03d}" for number in count())
        self.patch.setattr("jobs.service.submission.new_job_id", lambda: next(ids))
        self.patch.setattr("jobs.service.listing._THREADS", 1)  # faults come in one order
        self.store = Killing()
        self.clock = Clock(0.0)
        self.onlooker = StoreService(self.store, now_s=self.clock)
        self.servers: dict[str, FakeServer] = {}
        self.begun = self.looks = 0
        self.seen: dict[str, JobState] = {}
        self.acknowledged: dict[str, str] = {}  # by key
        self.cancelled: set[str] = set()

    def teardown(self) -> None:
        self.patch.undo()

    @initialize(seed=st.integers(0, 2**16), under_way=st.booleans())
    def begin(self, seed: int, under_way: bool) -> None:
        """under_way: a server runs a job from the start."""
        self.faulty = FaultyStore(self.store, seed, RATES)
        self.user = StoreService(self.faulty, now_s=self.clock)
        self.random = random.Random(seed)
        if under_way:
            self.server_comes()
            job_id = self.onlooker.submit(spec_of("a"), by="ann", idempotency_key="a").job_id
            self.acknowledged["a"] = job_id
            for _ in range(3):
                self.servers["s1"].step(job_id)
                self.states_follow_each_other()

    @rule(key=st.sampled_from(KEYS), dies_at=st.none() | st.integers(1, 8), after=st.booleans())
    def submit(self, key: str, dies_at: int | None, after: bool) -> None:
        self.store.at, self.store.after = dies_at, after
        try:
            job = self.user.submit(spec_of(key), by="ann", idempotency_key=key)
        except (Retryable, Died):
            return
        finally:
            self.store.at = None
        assert self.acknowledged.setdefault(key, job.job_id) == job.job_id

    @precondition(lambda self: self.acknowledged)
    @rule(
        data=st.data(),
        verbs=st.lists(st.sampled_from(["pause", "resume", "cancel"]), min_size=1, max_size=3),
    )
    def ask(self, data: st.DataObject, verbs: list[str]) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.acknowledged.values())))
        for verb in verbs:
            self.ask_for(verb, job_id)
            self.states_follow_each_other()

    def ask_for(self, verb: str, job_id: str) -> None:
        try:
            shown = getattr(self.user, verb)(job_id, by="ann")
        except Retryable:
            return
        except Conflict:
            wanted = self.onlooker.status(job_id).state
            assert wanted.is_terminal or wanted == JobState.CANCELLING
            return
        if verb == "cancel":
            assert shown.state in (JobState.CANCELLING, JobState.CANCELLED)
            self.cancelled.add(job_id)

    @precondition(lambda self: len(self.servers) < 2)
    @rule()
    def server_comes(self) -> None:
        self.begun += 1
        name = f"s{self.begun}"
        self.servers[name] = FakeServer(self.store, name)
        self.servers[name].beat()

    @precondition(lambda self: self.servers)
    @rule(orderly=st.booleans())
    def server_goes(self, orderly: bool) -> None:
        """In good order, or by a power cut, which is noticed when others have gone on for long."""
        name = self.random.choice(sorted(self.servers))
        server = self.servers.pop(name)
        if not orderly:
            self.onlooker.jobs(JobFilter(), 1)  # the count has been seen
            self.clock.now_s += SILENCE_S + 2
            for other in self.servers.values():
                other.beat()
        server.sign_off()

    @precondition(lambda self: self.servers)
    @rule(
        data=st.data(), steps=st.integers(1, 4), over_budget=st.sampled_from([False] * 4 + [True])
    )
    def server_works(self, data: st.DataObject, steps: int, over_budget: bool) -> None:
        server = self.servers[self.random.choice(sorted(self.servers))]
        jobs = server.jobs()
        if jobs:
            job_id = data.draw(st.sampled_from(jobs))
            for _ in range(steps):
                server.step(job_id, over_budget=over_budget)
                self.states_follow_each_other()

    @rule()
    def late_writes_land(self) -> None:
        self.faulty.settle()

    @invariant()
    def states_follow_each_other(self) -> None:
        self.clock.now_s += 3.0
        self.looks += 1
        for server in self.servers.values():
            server.beat()
        for job_id in job_ids(self.store):
            if find_record(self.store, job_id) is None:
                continue
            shown = self.onlooker.status(job_id)
            before = self.seen.get(job_id, JobState.QUEUED)
            assert shown.state == before or shown.state in NEXT_SERVICE_STATES[before], (
                f"{job_id}: {before} -> {shown.state}"
            )
            self.seen[job_id] = shown.state
            waits = shown.state in (JobState.QUEUED, JobState.PAUSED, JobState.CANCELLING)
            assert shown.reason is not None or not waits
            assert (shown.queue_position is not None) == (shown.state == JobState.QUEUED)
            if job_id in self.cancelled:
                assert shown.state in (JobState.CANCELLING, JobState.CANCELLED)

    @invariant()
    def what_was_acknowledged_is_there(self) -> None:
        listed = {line.job_id for line in self.onlooker.jobs(JobFilter()).jobs}
        assert set(self.acknowledged.values()) <= listed

    @invariant()
    def one_key_is_one_job(self) -> None:
        made = [i for i in job_ids(self.store) if find_record(self.store, i) is not None]
        keys = [load_job(self.store, i).spec.labels["key"] for i in made]
        assert len(keys) == len(set(keys))

    @precondition(lambda self: self.acknowledged and self.looks >= SETTLES_AFTER)
    @rule()
    def everything_settles(self) -> None:
        """Once nothing fails, whoever is resumed ends; and a history has every number once."""
        self.faulty.settle()
        self.server_comes()
        server = self.servers[f"s{self.begun}"]
        for other in [name for name in self.servers if self.servers[name] is not server]:
            self.servers.pop(other).sign_off()
        for job_id in self.acknowledged.values():
            for _ in range(SETTLED):
                state = self.onlooker.status(job_id).state
                if state == JobState.PAUSED:
                    self.onlooker.resume(job_id, by="ann")
                self.states_follow_each_other()
                server.step(job_id)
            assert self.onlooker.status(job_id).state.is_terminal
            ids = [event.id for event in self.onlooker.events(job_id)]
            assert ids == list(range(1, len(ids) + 1))


ServiceLife.TestCase.settings = settings(
    max_examples=examples(100, 5), stateful_step_count=25, deadline=None
)
TestServiceLife = ServiceLife.TestCase
