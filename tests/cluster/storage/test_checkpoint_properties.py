"""Runs are killed between commits and checkpoint, two write at once, the store loses replies and
tears objects: nothing is lost or doubled, for the commit records stay the truth."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.energy import sum_energy
from cluster.errors import ClusterError
from cluster.storage import commits
from cluster.storage.backoff import Backoff
from cluster.storage.checkpointing import Checkpointer
from cluster.storage.commit import commit, read_commits
from cluster.storage.commits import commits_of, open_commits
from cluster.storage.finish import finalise
from cluster.storage.layout import JobLayout
from cluster.storage.local import LocalStore
from cluster.storage.object_store import ObjectStore, StoreConfig
from cluster.types import Energy, Manifest
from tests.support import jobfactory
from tests.support.effort import examples
from tests.support.faulty_store import FaultRates, FaultyStore

SHARDS, EVERY, FRESH = 11, 4, 2
JOB = jobfactory.workload(count=SHARDS, shard_images=1)
LAYOUT = JobLayout("job")
QUICK = Backoff(attempts=3, sleep=lambda _: None)
MANY = settings(
    max_examples=examples(150),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
rate = st.sampled_from([0.0, 0.2, 0.5])
fault_rates = st.builds(FaultRates, before=rate, after=rate, late=rate, truncated=rate)


class Run:
    """A run of the job, whose checkpoints meet faults. The commits are made without any: they have
    tests of their own."""

    def __init__(self, inner: ObjectStore, seed: int, rates: FaultRates, name: str) -> None:
        self._inner, self._name, self._attempts = inner, name, 0
        self.faulty = FaultyStore(inner, seed, rates)
        self._keeper = Checkpointer(
            self.faulty, "job", SHARDS, every=EVERY, fresh=FRESH, backoff=QUICK
        )
        with suppress(ClusterError):  # as if it had not been started
            self._keeper.begin(open_commits(self.faulty, "job", shards=SHARDS, every=EVERY))
        self._keeper.settle()

    def commit(self, shard: int) -> None:
        data = b"x" * (shard + 1)
        energy = Energy(energy_mj=10**shard, quality="measured_counter", method="nvml")
        record = jobfactory.record_of(JOB, JOB.shard(shard), data, energy)
        self._attempts += 1  # nothing by chance: a failure is to be replayed
        name = f"{self._name}-{self._attempts}"
        written = record.objects[0].model_copy(update={"key": LAYOUT.images(shard, name)})
        update = {"attempt_id": name, "token": name, "objects": (written,)}
        record = record.model_copy(update=update)
        self._inner.put(written.key, data)
        if commit(self._inner, record) == "won":
            self._keeper.add(record)
        self._keeper.settle()


def check(store: ObjectStore) -> None:
    truth = read_commits(store, "job")
    for a_look in (0, 1, 1000):  # what is beside checkpoints is looked for, or listed
        with patch.object(commits, "A_LOOK", a_look):
            found = open_commits(store, "job", shards=SHARDS, every=EVERY)
        assert list(found) == list(truth.values())
        assert len(found) == found.shards.size == len(truth)
        assert found.images == sum(record.rows for record in truth.values())
        assert found.energy == sum_energy(record.energy for record in truth.values())


@MANY
@given(data=st.data(), rates=fault_rates, single_writer=st.booleans())
def test_nothing_is_lost_or_doubled(
    memory_dir: Path, data: st.DataObject, rates: FaultRates, single_writer: bool
) -> None:
    shutil.rmtree(memory_dir)
    memory_dir.mkdir()
    store = LocalStore(StoreConfig(memory_dir.as_uri(), single_writer=single_writer))
    seeds = st.integers(0, 2**32)
    runs = [Run(store, data.draw(seeds), rates, f"r{i}") for i in range(2)]
    every = list(runs)
    steps = st.sampled_from(["commit", "commit", "commit", "kill", "tear", "delete", "land"])
    for step in data.draw(st.lists(steps, max_size=25), label="steps"):
        at = data.draw(st.integers(0, 1))
        keys = [info.key for info in store.list(LAYOUT.checkpoints)]
        if step == "commit":
            runs[at].commit(data.draw(st.integers(0, SHARDS - 1), label="shard"))
        elif step == "kill":
            runs[at] = Run(store, data.draw(seeds), rates, f"r{len(every)}")
            every.append(runs[at])
        elif step == "land":
            runs[at].faulty.settle()
        elif keys:
            key = data.draw(st.sampled_from(keys))
            whole = store.get(key)
            if step == "tear":
                store.put(key, whole[: int(len(whole) * data.draw(st.floats(0, 1)))])
            else:
                store.delete(key)
        check(store)

    faulty = FaultyStore(store, data.draw(seeds), rates)
    ended: list[Manifest] = []
    with suppress(ClusterError):
        ended.append(finalise(faulty, "job", "failed", shards=SHARDS, every=EVERY, backoff=QUICK))
    ended.append(finalise(store, "job", "failed", shards=SHARDS, every=EVERY, backoff=QUICK))
    faulty.settle()
    for run in every:
        run.faulty.settle()
    check(store)
    truth = read_commits(store, "job")
    for manifest in ended:
        assert list(commits_of(store, manifest)) == list(truth.values())
        assert manifest.images == sum(record.rows for record in truth.values())
        assert manifest.energy == sum_energy(record.energy for record in truth.values())
