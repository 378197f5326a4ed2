"""One replica's body without Ray: shards become committed Parquet, in step with the device."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster import execution
from cluster.errors import Retryable
from cluster.execution import Abandoned, ShardRunner
from cluster.metering.meter import LapMeter, Meter
from cluster.metering.missing import MissingSource
from cluster.metering.reading import Device
from cluster.storage.backoff import Backoff
from cluster.storage.commit import commit, read_commits
from cluster.storage.faults import FaultRates, FaultyStore
from cluster.storage.images import decode_image
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.types import Energy, Workload
from un0.sampler import Sampler
from un0.testing import random_model

SAMPLER = Sampler(random_model(), device="cpu", threads=1)
SIZE = SAMPLER.image_size


@dataclass
class ScriptedMeter:
    """Gives the joules it is told to, so that their way can be followed."""

    laps_mj: list[int] = field(default_factory=lambda: [8000, 4000, 2000])
    hardware: str = "scripted"
    provider: str = "test"

    def lap(self) -> Energy:
        return Energy(energy_mj=self.laps_mj.pop(0), quality="measured_counter", method="script")

    def close(self) -> None:
        pass


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path))


@pytest.fixture
def workload() -> Workload:
    return Workload(job_id="job", model="test", model_rev="rev", count=20, seed=9, shard_images=8,
                    class_ids=(0, 1), width=SIZE, height=SIZE)  # fmt: skip


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = Backoff(attempts=40, sleep=lambda _: None)
    monkeypatch.setattr(execution, "PATIENCE", patience)


def runner(workload: Workload, store: ObjectStore, meter: Meter | None = None) -> ShardRunner:
    return ShardRunner(workload, SAMPLER, meter or ScriptedMeter(), store)


def rows(store: ObjectStore, shard: int) -> list[dict[str, object]]:
    key = read_commits(store, "job")[shard].objects[0].key
    table: list[dict[str, object]] = pq.read_table(io.BytesIO(store.get(key))).to_pylist()
    return table


def test_a_shard_becomes_a_commit_with_its_pictures_and_joules(
    workload: Workload, store: ObjectStore
) -> None:
    heard: list[int] = []
    body = runner(workload, store)
    attempt = body.run(workload.shard(2), heard.append)
    assert attempt.outcome == "won"
    assert sum(heard) == 4  # the last shard is shorter
    expected = SAMPLER.generate(9, 16, [0, 1, 0, 1])
    for row, pixels in zip(rows(store, 2), expected, strict=True):
        assert np.array_equal(np.asarray(decode_image(row)), pixels)
        assert row["energy_j"] == pytest.approx(8.0 / 4)
        assert row["energy_quality"] == "measured_counter"
    assert body.clock.busy_s > 0
    assert body.close().energy_mj == 4000  # the tail after the last shard


def test_energy_of_an_unmetered_device_is_null(workload: Workload, store: ObjectStore) -> None:
    unmetered = LapMeter(MissingSource(Device("x", "gpu", "odd", "gpu"), "no driver"))
    runner(workload, store, unmetered).run(workload.shard(0))
    assert {(row["energy_j"], row["energy_quality"]) for row in rows(store, 0)} == {
        (None, "missing")
    }


def test_the_device_generates_the_next_shard_while_the_last_is_uploaded(
    workload: Workload, store: ObjectStore
) -> None:
    second_generated = threading.Event()

    def hold_first_upload(verb: str, key: str) -> None:
        if verb == "put" and "/00000000/" in key:
            assert second_generated.wait(60), "the device waited for the store"

    slow = FaultyStore(store, 0, FaultRates(slow=1.0), hold_first_upload)
    body = runner(workload, slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(body.run, workload.shard(0))
        second = pool.submit(body.run, workload.shard(1), lambda _: second_generated.set())
        assert first.result().outcome == second.result().outcome == "won"


def test_an_unreliable_store_costs_retries_not_images(
    workload: Workload, store: ObjectStore
) -> None:
    generated: list[int] = []
    faulty = FaultyStore(store, 3, FaultRates(before=0.3, after=0.3))
    body = runner(workload, faulty)
    for shard in workload.shards():
        assert body.run(shard, generated.append).outcome == "won"
    assert sum(generated) == workload.count  # nothing was made twice
    assert sorted(read_commits(store, "job")) == [0, 1, 2]


def test_a_store_that_stays_away_ends_the_attempt(workload: Workload, store: ObjectStore) -> None:
    with pytest.raises(Retryable):
        runner(workload, FaultyStore(store, 0, FaultRates(before=1.0))).run(workload.shard(0))
    assert read_commits(store, "job") == {}


def test_of_two_attempts_one_wins_and_the_other_leaves_nothing(
    workload: Workload, store: ObjectStore
) -> None:
    outcomes = [runner(workload, store).run(workload.shard(0)).outcome for _ in range(2)]
    assert outcomes == ["won", "lost"]
    assert len(list(store.list("jobs/job/attempts/"))) == 1


def test_abandoned_work_leaves_nothing(workload: Workload, store: ObjectStore) -> None:
    body = runner(workload, store)
    body.abandon()
    with pytest.raises(Abandoned):
        body.run(workload.shard(0))
    assert list(store.list("jobs/")) == []


def test_a_single_writer_gets_the_record_to_commit(workload: Workload, store: ObjectStore) -> None:
    body = ShardRunner(workload, SAMPLER, ScriptedMeter(), store, commit_here=False)
    attempt = body.run(workload.shard(0))
    assert attempt.outcome is None
    assert read_commits(store, "job") == {}
    assert commit(store, attempt.record) == "won"
    assert read_commits(store, "job")[0] == attempt.record


def test_a_sampler_that_breaks_gives_the_device_back(
    workload: Workload, store: ObjectStore
) -> None:
    class Breaks:
        def generate_tiles(self, *_: object) -> Iterator[tuple[int, np.ndarray]]:
            raise RuntimeError("out of memory")
            yield

    body = ShardRunner(workload, Breaks(), ScriptedMeter(), store)
    for _ in range(2):  # the second would wait for ever if the first kept the device
        with pytest.raises(RuntimeError, match="out of memory"):
            body.run(workload.shard(0))
