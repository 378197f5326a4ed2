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

from cluster.errors import Retryable
from cluster.ledger.usage import Work
from cluster.pipeline import publisher
from cluster.pipeline.giving_up import Abandoned
from cluster.pipeline.shard_runner import Meter, ShardRunner
from cluster.storage.commit import commit, read_commits
from cluster.storage.image_rows import decode_image
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.types import MISSING_ENERGY, Energy, Workload
from tests.support.faulty_store import FaultRates, FaultyStore
from un0.sampler import Sampler
from un0.testing import random_model

SAMPLER = Sampler(random_model(), device="cpu", threads=1)
SIZE = SAMPLER.image_size


@dataclass
class ScriptedMeter:
    """Returns the joules that a test sets, so that their way can be followed."""

    attempts_mj: list[int] = field(default_factory=lambda: [8000, 4000, 2000])
    hardware: str = "scripted"
    uses: list[tuple[str, int | None, int | None]] = field(default_factory=list)

    def begin(self, attempt_id: str, work: Work) -> None:
        self.uses.append((attempt_id, work.shard, None))

    def end(self, attempt_id: str, images: int | None = None) -> Energy:
        assert self.uses[-1][0] == attempt_id, "two attempts on one device at a time"
        self.uses[-1] = (*self.uses[-1][:2], images)
        energy_mj = self.attempts_mj.pop(0)
        return Energy(energy_mj=energy_mj, quality="measured_counter", method="script")


class BlindMeter(ScriptedMeter):
    """Cannot tell any energy."""

    def end(self, *_: object) -> Energy:
        return MISSING_ENERGY


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path))


@pytest.fixture
def workload() -> Workload:
    return Workload(job_id="job", model="test", model_rev="rev", count=20, seed=9, shard_images=8,
                    class_ids=(0, 1), width=SIZE, height=SIZE)  # fmt: skip


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "RETRY_S", 0.0)


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
    meter = ScriptedMeter()
    body = runner(workload, store, meter)
    attempt = body.run(workload.shard(2), "first", heard.append)
    assert attempt.outcome == "won"
    assert sum(heard) == 4  # the last shard is shorter
    expected = SAMPLER.generate(9, 16, [0, 1, 0, 1])
    for row, pixels in zip(rows(store, 2), expected, strict=True):
        assert np.array_equal(np.asarray(decode_image(row)), pixels)
        assert row["energy_j"] == pytest.approx(8.0 / 4)
        assert row["energy_quality"] == "measured_counter"
    assert body.times.device_s > 0
    assert attempt.record.attempt_id == "first"
    assert meter.uses == [("first", 2, 4)]


def test_energy_of_an_unmetered_device_is_null(workload: Workload, store: ObjectStore) -> None:
    runner(workload, store, BlindMeter()).run(workload.shard(0), "a")
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
        first = pool.submit(body.run, workload.shard(0), "a")
        second = pool.submit(body.run, workload.shard(1), "b", lambda _: second_generated.set())
        assert first.result().outcome == second.result().outcome == "won"


def test_an_unreliable_store_costs_retries_not_images(
    workload: Workload, store: ObjectStore
) -> None:
    generated: list[int] = []
    faulty = FaultyStore(store, 3, FaultRates(before=0.3, after=0.3))
    body = runner(workload, faulty)
    for shard in workload.shards():
        assert body.run(shard, f"a{shard.index}", generated.append).outcome == "won"
    assert sum(generated) == workload.count  # nothing was made twice
    assert sorted(read_commits(store, "job")) == [0, 1, 2]


def test_a_store_that_stays_away_ends_the_attempt(
    workload: Workload, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "PATIENCE_S", 0.0)
    body = runner(workload, FaultyStore(store, 0, FaultRates(before=1.0)))
    with pytest.raises(Retryable):
        body.run(workload.shard(0), "a")
    assert read_commits(store, "job") == {}


def test_of_two_attempts_one_wins_and_the_other_leaves_nothing(
    workload: Workload, store: ObjectStore
) -> None:
    outcomes = [runner(workload, store).run(workload.shard(0), name).outcome for name in "ab"]
    assert outcomes == ["won", "lost"]
    assert len(list(store.list("jobs/job/attempts/"))) == 1


def test_abandoned_work_leaves_nothing(workload: Workload, store: ObjectStore) -> None:
    body = runner(workload, store)
    body.abandon()
    with pytest.raises(Abandoned):
        body.run(workload.shard(0), "a")
    assert list(store.list("jobs/")) == []


def test_a_shard_is_given_up_unless_it_will_be_done_in_time(
    workload: Workload, store: ObjectStore
) -> None:
    body = runner(workload, store)
    in_time = body.run(workload.shard(0), "a", lambda _: body.abandon(["a"], within_s=3600.0))
    assert in_time.outcome == "won"
    with pytest.raises(Abandoned):
        body.run(workload.shard(1), "b", lambda _: body.abandon(["b"], within_s=0.0))
    body.abandon(["c"], within_s=3600.0)
    with pytest.raises(Abandoned):  # it has not begun: nothing of it would be wasted
        body.run(workload.shard(1), "c")
    assert sorted(read_commits(store, "job")) == [0]


def test_asked_to_give_up_nobody_waits_for_a_store_that_is_away(
    workload: Workload, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "RETRY_S", 600.0)
    body = runner(workload, FaultyStore(store, 0, FaultRates(before=1.0)))
    with ThreadPoolExecutor(1) as pool:
        attempt = pool.submit(body.run, workload.shard(0), "a")
        while not body.trouble:
            assert not attempt.done()
        body.abandon()
        with pytest.raises(Abandoned):
            attempt.result(timeout=60)


def test_a_single_writer_gets_the_record_to_commit(workload: Workload, store: ObjectStore) -> None:
    body = ShardRunner(workload, SAMPLER, ScriptedMeter(), store, commit_here=False)
    attempt = body.run(workload.shard(0), "a")
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
            body.run(workload.shard(0), "a")
