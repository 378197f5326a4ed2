"""A simulated job service: real supervisors over a faulty store, one clock, one seed for all of it.

Any server may stand still in the middle of any call of its store for as long as it likes, while the
others go on, or die there. Replies are lost, writes arrive late, Ray is lost and comes back.
"""

from __future__ import annotations

import contextlib
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from cluster.actors import job_run
from cluster.actors.options import ModelWork, RunRequest
from cluster.errors import Retryable
from cluster.scheduler.request import JobRequest
from cluster.states import JobState
from cluster.storage import finish
from cluster.storage.backoff import Backoff
from cluster.storage.commit import committed_shards, ended_state, read_commits
from cluster.storage.epoch import newest
from cluster.storage.intents import Intent, TooLate, newest_intent, want
from cluster.storage.layout import SERVERS, JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.servers import newest_run
from cluster.types import JobRecord, SubmittedSpec
from jobs.server.held import Held
from jobs.server.supervisor import SILENCE_S, Identity, Supervisor
from tests.support import jobfactory
from tests.support.faulty_store import FaultRates, FaultyStore
from tests.support.memory_store import MemoryStore
from tests.support.service_fleet import FakeFleet, Habits

SEED_VARIABLE = "UN0_SERVICE_SEED"
START = datetime(2026, 1, 1, tzinfo=UTC)
FAULTS = FaultRates(before=0.01, after=0.01, late=0.01, replayed=0.05, truncated=0.003)
SETTLES_IN_S = 900
DEADLINE_S = 40.0


class Broken(BaseException):  # that no server survives
    """An invariant does not hold. name: which."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.name = name


class Crash(BaseException):
    """The server's process is killed here."""


@dataclass
class Options:
    """What a seed has drawn. shared: all servers use one Ray cluster. Rates are a store's call."""

    servers: int
    shared: bool
    jobs: int
    faulty_s: int
    stands_still: float
    dies: float
    ray_lost: float  # a second
    habits: Habits
    rates: FaultRates

    @classmethod
    def of(cls, random: Random, faulty_s: int) -> Options:
        def some(*values: float) -> float:
            return random.choice(values)

        return cls(
            servers=random.choice((1, 2, 2, 3)),
            shared=random.random() < 0.5,
            jobs=random.choice((1, 2, 3)),
            faulty_s=faulty_s,
            stands_still=some(0.0, 0.001, 0.004),
            dies=some(0.0, 0.0005, 0.002),
            ray_lost=some(0.0, 0.01, 0.03),
            habits=Habits(fails=some(0.0, 0.02), deaf=some(0.0, 0.5), silent=some(0.0, 0.02)),
            rates=random.choice((FaultRates(), FAULTS, replace(FAULTS, late=0.05, after=0.05))),
        )


class Clock:
    """The world's time, by a server's own clocks: none of them agree."""

    def __init__(self, world: World, offset_s: float) -> None:
        self._world, self._offset_s = world, offset_s

    def monotonic_s(self) -> float:
        return self._world.now_s + self._offset_s

    def utc(self) -> datetime:
        return self._world.utc()


class Server:
    """A server's life, from its start to its end."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.alive, self.inside = True, False
        self.read_beats_s = 0.0  # when it last read the others' signs of life
        self.weather = FaultyStore(world.truth, world.random.getrandbits(32), world.rates)
        store = ServerStore(world, self, self.weather)
        self.supervisor = world.supervisor(
            store,
            Identity(name, "host", 1),
            world.request_of,
            Clock(world, world.random.uniform(0, 1e6)),
            Random(world.random.getrandbits(32)),
        )
        self.fleet: FakeFleet | None = None


class ServerStore:
    """The store as one server sees it: in any call it may be stopped for a while, or for good."""

    def __init__(self, world: World, server: Server, inner: ObjectStore) -> None:
        self._world, self._server, self._inner = world, server, inner

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._inner, name)
        if name == "config":
            return call

        def faulty(key: str, *args: Any, **kwargs: Any) -> Any:
            self._world.in_a_call(self._server, name, key)
            try:
                result = call(key, *args, **kwargs)
                return iter(list(result)) if name == "list" else result
            except Retryable as error:
                self._world.faults[f"store: {str(error).rpartition(', ')[2]}"] += 1
                raise

        return faulty


@dataclass
class World:
    """supervisor, fleet: what servers are made of; tests plant faults in them.

    chosen: options, in place of those that the seed has drawn.
    """

    seed: int
    faulty_s: int = 60
    supervisor: type[Supervisor] = Supervisor
    fleet: type[FakeFleet] = FakeFleet
    chosen: Mapping[str, Any] = field(default_factory=dict)
    now_s: float = 0.0
    trace: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.options = replace(Options.of(self.random, self.faulty_s), **self.chosen)
        self.truth = MemoryStore(self._written)
        self.servers: list[Server] = []
        self.fleets: list[FakeFleet] = []  # those that work on, reachable or not
        self.cluster: FakeFleet | None = None  # that servers share
        self.calm = False
        self.jobs: list[str] = []
        self.doomed: set[str] = set()
        self.thirsty: set[str] = set()
        self.ends: dict[str, JobState] = {}
        self.tokens: dict[str, bytes] = {}
        self.beats: dict[str, float] = {}
        self.intents: dict[str, list[tuple[float, str]]] = {}
        self.claims: dict[tuple[str, int], tuple[float, str]] = {}
        self.depth = 0
        self.born = 0
        self.faults: Counter[str] = Counter()
        self.settled_in_s = 0.0
        self.attempts = 0

    @property
    def rates(self) -> FaultRates:
        return FaultRates() if self.calm else self.options.rates

    @property
    def habits(self) -> Habits:
        return Habits() if self.calm else self.options.habits

    def utc(self) -> datetime:
        return START + timedelta(seconds=self.now_s)

    def note(self, what: str) -> None:
        self.trace.append(f"{self.now_s:.1f} {what}")

    # What happens

    def run(self) -> None:
        """Faults, then calm, until every job is at rest. Raises Broken."""
        with self._simulated():
            for _ in range(self.options.servers):
                self.start_server()
            for number in range(self.options.jobs):
                self.submit(f"job-{number}")
            while self.now_s < self.faulty_s:
                self.second()
            self.become_calm()
            calm_s, until_s = self.now_s, self.now_s + SETTLES_IN_S
            while not all(map(self.is_at_rest, self.jobs)):
                if self.now_s > until_s:
                    raise Broken("everything settles", self.describe())
                self.second()
            self.settled_in_s = self.now_s - calm_s
            self.check_the_end()

    def second(self) -> None:
        """A second of everybody's time."""
        self.now_s += 1.0
        random = self.random
        for fleet in list(self.fleets):
            fleet.step()
        if not self.calm:
            self.users()
            if random.random() < self.options.ray_lost:
                self.lose_ray(random.choice(self.fleets) if self.fleets else None)
        for server in list(self.servers):
            if server.alive and not server.inside:
                self.tick(server)
        if not self.calm and random.random() < 0.1 and self.depth == 0:
            dead = [server for server in self.servers if not server.alive]
            if dead:
                self.servers.remove(random.choice(dead))
                self.start_server()

    def tick(self, server: Server) -> None:
        if server.supervisor.fleet is None and self.random.random() < 0.5:
            server.supervisor.fleet = server.fleet = self.some_fleet(server)
        server.inside = True
        try:
            server.supervisor.tick()
        except Crash:
            self.die(server)
        finally:
            server.inside = False

    def some_fleet(self, server: Server) -> FakeFleet:
        """The shared cluster, or a Ray of the server's own."""
        if self.options.shared:
            if self.cluster is None:
                self.cluster = self._new_fleet("cluster")
            return self.cluster
        if server.fleet is not None and server.fleet.reachable:
            server.fleet.reachable = False  # as its processes are killed
            self.fleets.remove(server.fleet)
        return self._new_fleet(server.name)

    def lose_ray(self, fleet: FakeFleet | None) -> None:
        """Its servers cannot reach it any more. It may be gone, or work on without them."""
        if fleet is None:
            return
        fleet.reachable = False
        if fleet is self.cluster:
            self.cluster = None
        if self.random.random() < 0.5:
            self.fleets.remove(fleet)
        self.note("ray is lost")
        self.faults["ray is lost"] += 1

    def die(self, server: Server) -> None:
        server.alive = False
        self.note(f"{server.name} dies")
        self.faults["a server is killed"] += 1
        if server.fleet is not None and not self.options.shared and server.fleet in self.fleets:
            self.fleets.remove(server.fleet)

    def in_a_call(self, server: Server, verb: str, key: str) -> None:
        """A server is about to call its store."""
        if not server.alive:
            raise Crash
        if key == SERVERS and verb == "list":
            server.read_beats_s = self.now_s
        if not self.calm and self.depth < 2:
            if self.random.random() < self.options.dies:
                raise Crash
            if self.random.random() < self.options.stands_still:
                self.stand_still(server)
        if verb == "put_if_absent" and "/epochs/" in key:
            self.check_claim(server, key)

    def stand_still(self, server: Server) -> None:
        seconds = self.random.choice((1, 5, 15, 15, 40))
        self.note(f"{server.name} stands still for {seconds} s")
        self.faults["a server stands still"] += 1
        self.depth += 1
        for _ in range(seconds):
            self.second()
        self.depth -= 1

    def become_calm(self) -> None:
        self.note("calm")
        self.calm = True
        for fleet in list(self.fleets):
            fleet.habits = Habits()
            if not fleet.reachable:
                self.fleets.remove(fleet)
            fleet.store._rates = FaultRates()  # type: ignore[attr-defined]
        for server in self.servers:
            server.weather._rates = FaultRates()
            server.weather.settle()
        for fleet in self.fleets:
            fleet.store.settle()  # type: ignore[attr-defined]
        if not any(server.alive for server in self.servers):
            self.start_server()

    # What users do

    def submit(self, job_id: str) -> None:
        random, layout = self.random, JobLayout(job_id)
        workload = jobfactory.workload(job_id, count=random.choice((6, 12, 20)))
        spec: dict[str, Any] = {"model": "test/tiny"}
        if random.random() < 0.2:
            spec |= {"deadline": DEADLINE_S, "on_deadline": "stop"}
        if random.random() < 0.1:
            self.doomed.add(job_id)
        if random.random() < 0.2:
            self.thirsty.add(job_id)
        record = JobRecord(
            workload=workload,
            spec=SubmittedSpec.model_validate(spec),
            owner="tester",
            submitted_at=self.utc(),
        )
        self.truth.put(layout.active, b"")
        want(self.truth, job_id, "run", self.utc(), by="tester")
        self.truth.put_if_absent(layout.spec, record.model_dump_json().encode())
        self.jobs.append(job_id)

    def users(self) -> None:
        """Somebody changes their mind, now and then."""
        if self.random.random() > 0.08:
            return
        job_id = self.random.choice(self.jobs)
        wanted: Any = self.random.choice(("pause", "run", "pause", "run", "cancel"))
        if ended_state(self.truth, job_id) is not None:
            return
        with contextlib.suppress(TooLate):
            want(self.truth, job_id, wanted, self.utc(), by="tester")
            self.truth.put(JobLayout(job_id).active, b"")

    def request_of(self, record: JobRecord) -> RunRequest:
        workload = record.workload
        request = JobRequest(
            job_id=workload.job_id,
            model=workload.model_rev,
            images=workload.count,
            shard_images=workload.shard_images,
        )
        return RunRequest(workload, request, ModelWork(1.0, 8, 8))

    # What must hold

    def _written(self, key: str, data: bytes | None) -> None:
        """A change of the store, by whomever."""
        self.note(f"{key} {'' if data is None else len(data)}{' gone' if data is None else ''}")
        job_id, _, rest = key.removeprefix("jobs/").partition("/")
        self.attempts += rest.startswith("attempts/") and data is not None
        if key.startswith(SERVERS) and data is not None:
            self.beats[key.removeprefix(SERVERS).removesuffix(".json")] = self.now_s
        elif rest == "spec.json" and data is None:
            raise Broken("submitted jobs never vanish", job_id)
        elif rest.startswith("intents/") and data is not None:
            wanted = Intent.model_validate_json(data).wanted
            self.intents.setdefault(job_id, []).append((self.now_s, wanted))
        elif rest.startswith("epochs/") and data is not None:
            number = int(rest.removeprefix("epochs/").removesuffix(".txt"))
            self.claims[job_id, number] = (self.now_s, data.decode().split()[1])
        elif rest.startswith(("commits/", "_")) or rest == "manifest.json":
            self._check_final(job_id, key, data)

    def _check_final(self, job_id: str, key: str, data: bytes | None) -> None:
        before = self.tokens.setdefault(key, data or b"")
        if data != before:
            name = "every shard once" if "/commits/" in key else "terminal states are final"
            raise Broken(name, f"{key} has changed")
        if (end := ended_state(self.truth, job_id)) is None:
            return
        if self.ends.setdefault(job_id, end) != end:
            raise Broken("terminal states are final", f"{job_id}: {self.ends[job_id]}, then {end}")
        self._check_right_to_end(job_id, end)

    def _check_right_to_end(self, job_id: str, end: JobState) -> None:
        intents = [wanted for _, wanted in self.intents[job_id]]
        record = JobRecord.model_validate_json(self.truth.get(JobLayout(job_id).spec))
        shards = record.workload.num_shards
        right = {
            JobState.CANCELLED: "cancel" in intents,
            JobState.EXPIRED: record.spec.deadline is not None
            and self.utc() >= record.submitted_at + timedelta(seconds=record.spec.deadline),
            JobState.COMPLETED: len(committed_shards(self.truth, job_id)) == shards,
            JobState.FAILED: job_id in self.doomed or self.options.habits.fails > 0,
        }
        if not right.get(end, False):
            raise Broken("a job ends by right", f"{job_id} is {end}")

    def check_claim(self, server: Server, key: str) -> None:
        """Nobody takes over from a server that has been heard of within the silence."""
        job_id, _, rest = key.removeprefix("jobs/").partition("/")
        number = int(rest.removeprefix("epochs/").removesuffix(".txt"))
        holder = self.claims.get((job_id, number - 1), (0.0, server.name))[1]
        last_s = self.beats.get(holder)
        read_s = server.read_beats_s
        if (
            holder != server.name
            and last_s is not None
            and read_s - SILENCE_S + 0.01 < last_s <= read_s
        ):
            raise Broken(
                "no server is taken over while it lives",
                f"{server.name} takes {job_id} from {holder}, heard of {read_s - last_s:.0f} s ago",
            )

    def check_open(self, job_id: str, epoch: int) -> None:
        """A run has opened its job: its claim is the newest, and its server has read the intent
        after it had made the claim."""
        if newest(self.truth, job_id) != epoch:
            raise Broken("no run begins under an old claim", f"{job_id}, run {epoch}")
        claimed_s, _ = self.claims[job_id, epoch]
        changes = self.intents[job_id]
        then = [wanted for at_s, wanted in changes if at_s <= claimed_s][-1:]
        if "run" not in then + [wanted for at_s, wanted in changes if at_s > claimed_s]:
            raise Broken("what is not wanted is not begun", f"{job_id}, run {epoch}: {changes}")

    def is_at_rest(self, job_id: str) -> bool:
        """It has ended and nobody looks at it, or it is paused and nothing of it is under way."""
        if ended_state(self.truth, job_id) is not None:
            return JobLayout(job_id).active not in self.truth.objects
        if JobLayout(job_id).active not in self.truth.objects:
            raise Broken("submitted jobs never vanish", f"nobody looks at {job_id} any more")
        intent, status = newest_intent(self.truth, job_id), newest_run(self.truth, job_id)
        if intent is None or status is None or intent.wanted == "cancel":
            return False
        if any(job_id in fleet.book for fleet in self.fleets if fleet.reachable):
            return False
        return status.state == JobState.PAUSED and status.intent >= intent.number

    def check_the_end(self) -> None:
        for job_id in self.jobs:
            for shard, record in read_commits(self.truth, job_id).items():
                if any(o.key not in self.truth.objects for o in record.objects):
                    raise Broken("what is committed stays", f"{job_id}, shard {shard}")

    def describe(self) -> str:
        lines = []
        for job_id in self.jobs:
            status, intent = newest_run(self.truth, job_id), newest_intent(self.truth, job_id)
            lines.append(
                f"{job_id}: end {ended_state(self.truth, job_id)}, epoch "
                f"{newest(self.truth, job_id)}; {intent}; {status}"
            )
        return "; ".join(lines)

    # How it is made

    def start_server(self) -> None:
        self.born += 1
        self.servers.append(Server(self, f"server-{self.born}"))
        self.note(f"server-{self.born} starts")

    def _new_fleet(self, name: str) -> FakeFleet:
        self.note(f"a Ray for {name}")
        weather = FaultyStore(self.truth, self.random.getrandbits(32), self.rates)
        fleet = self.fleet(
            weather,
            Random(self.random.getrandbits(32)),
            self.habits,
            self.check_open,
            frozenset(self.doomed),
            frozenset(self.thirsty),
        )
        fleet.pace = 0.5 if self.seed % 2 == 0 else 0.1  # then jobs last as long as the faults
        self.fleets.append(fleet)
        return fleet

    @contextlib.contextmanager
    def _simulated(self) -> Iterator[None]:
        """No real time and no chance but the seed's."""
        chance = Random(self.seed)

        async def inline(function: Any, *args: Any) -> Any:
            return function(*args)

        def waited(_: float) -> None:
            self.now_s += 0.1

        def surprised(_: Supervisor, held: Held, error: Exception) -> None:
            raise Broken("nothing comes as a surprise", f"{held.job_id}: {error!r}") from error

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(job_run.asyncio, "to_thread", inline)
            patch.setattr(job_run, "monotonic_s", lambda: self.now_s)
            patch.setattr(finish, "utc_now", self.utc)
            patch.setattr(Backoff.__init__, "__defaults__", (6, 0.1, 5.0, waited))
            patch.setattr(Supervisor, "_surprised", surprised)
            patch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=chance.getrandbits(128), version=4))
            yield


def play(seed: int, **options: Any) -> World:
    """The world of this seed, at its end. Raises Broken, after which its trace is of use."""
    world = World(seed, **options)
    world.run()
    return world
