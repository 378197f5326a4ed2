"""Memory between the stages is bounded, whatever is slow, breaks or is given up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cluster.errors import Fatal
from cluster.ledger.usage import Work
from cluster.pipeline.giving_up import Abandoned
from cluster.pipeline.publisher import Attempt
from cluster.pipeline.shard_runner import ShardRunner
from cluster.pipeline.stages import Budget, Lane
from cluster.stage_times import StageTimes
from cluster.storage.commit import read_commits
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.types import Energy, Workload
from tests.support.faulty_store import FaultRates, FaultyStore

SIDE, TILE = 32, 64
TILE_BYTES = TILE * SIDE * SIDE * 3


class Tiles:
    """A device without a limit: noise, which no encoding makes smaller. made: so many tiles."""

    def __init__(self) -> None:
        self.made = 0
        self._rng = np.random.default_rng(0)

    def generate_tiles(
        self, _seed: int, _start: int, class_ids: NDArray[np.int64]
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for offset in range(0, len(class_ids), TILE):
            self.made += 1
            rows = min(TILE, len(class_ids) - offset)
            yield offset, self._rng.integers(0, 256, (rows, SIDE, SIDE, 3), np.uint8)


class NoMeter:
    hardware = "test"

    def begin(self, attempt_id: str, work: Work) -> None: ...

    def end(self, _attempt_id: str, _images: int | None = None) -> Energy:
        return Energy(energy_mj=1, quality="measured_counter", method="test")


def job(shards: int, tiles_each: int = 4, **changes: Any) -> Workload:
    settings: dict[str, Any] = {
        "job_id": "job", "model": "test", "model_rev": "rev", "seed": 1, "class_ids": (0,),
        "count": shards * tiles_each * TILE, "shard_images": tiles_each * TILE,
        "width": SIDE, "height": SIDE, "encoding": "raw",
    }  # fmt: skip
    return Workload(**settings | changes)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40)), max_size=60))
def test_a_budget_is_kept_except_by_one_holding_alone(moves: list[tuple[int, int]]) -> None:
    budget = Budget(100)
    holdings = [budget.holding() for _ in range(4)]

    def full() -> None:
        raise Abandoned

    for which, size in moves:
        holding = holdings[which]
        others = budget.used_bytes - holding.size_bytes
        try:
            holding.take(size, full)
        except Abandoned:
            assert others > 0
            assert budget.used_bytes + size > 100
            holding.release()
            holdings[which] = budget.holding()
        else:
            assert budget.used_bytes <= 100 or others == 0
        assert budget.used_bytes == sum(h.size_bytes for h in holdings)


def test_what_was_released_counts_no_more() -> None:
    budget = Budget(100)
    holding = budget.holding()
    holding.take(60)
    holding.release()
    holding.replace(60, 90)  # an encoder that was still at it when the shard was given up
    assert (budget.used_bytes, budget.peak_bytes) == (0, 60)


def test_a_slow_store_stops_the_device_and_fills_no_memory(store: ObjectStore) -> None:
    """While no upload comes back the device makes what the budget has room for, and no more."""
    blocked, go_on = threading.Event(), threading.Event()

    def hold(verb: str, _key: str) -> None:
        if verb == "put":
            blocked.set()
            assert go_on.wait(60)

    budget = 10 * TILE_BYTES
    lane = Lane(encoders=2, uploads=2, budget_bytes=budget)
    slow = FaultyStore(store, 0, FaultRates(slow=1.0), hold)
    device, workload = Tiles(), job(shards=12)
    runner = ShardRunner(workload, device, NoMeter(), slow, lane=lane)

    def feed() -> list[Future[Attempt]]:
        return [runner.start(shard, f"a{shard.index}") for shard in workload.shards()]

    with ThreadPoolExecutor(1) as pool:
        feeding = pool.submit(feed)
        assert blocked.wait(60)
        made = -1
        while made != device.made:  # until it stands still
            made = device.made
            assert not go_on.wait(0.5)
        assert made <= 12  # of 48: ten in the budget, one in hand, one on its way
        assert not feeding.done()
        go_on.set()
        attempts = [future.result() for future in feeding.result()]
    assert [attempt.outcome for attempt in attempts] == ["won"] * 12
    assert lane.budget.peak_bytes <= budget + 2 * TILE_BYTES  # files have headers and columns
    assert lane.budget.used_bytes == 0


def test_a_shard_larger_than_the_budget_gets_through(store: ObjectStore) -> None:
    workload = job(shards=2, tiles_each=8)
    lane = Lane(budget_bytes=2 * TILE_BYTES)
    runner = ShardRunner(workload, Tiles(), NoMeter(), store, lane=lane)
    for future in [runner.start(shard, f"a{shard.index}") for shard in workload.shards()]:
        assert future.result().outcome == "won"
    assert lane.budget.used_bytes == 0


def test_who_waits_for_memory_can_be_given_up(store: ObjectStore) -> None:
    go_on = threading.Event()

    def hold(verb: str, _key: str) -> None:
        assert verb != "put" or go_on.wait(60)

    lane = Lane(budget_bytes=5 * TILE_BYTES)
    slow = FaultyStore(store, 0, FaultRates(slow=1.0), hold)
    workload = job(shards=3)
    runner = ShardRunner(workload, Tiles(), NoMeter(), slow, lane=lane)
    first = runner.start(workload.shard(0), "a")
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(runner.start, workload.shard(1), "b")
        runner.abandon(["b"])
        with pytest.raises(Abandoned):
            second.result(timeout=60)
    go_on.set()
    assert first.result().outcome == "won"
    assert sorted(read_commits(store, "job")) == [0]
    assert lane.budget.used_bytes == 0


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_change_no_byte(store: ObjectStore, threads: int) -> None:
    def digests(encoders: int, name: str) -> list[str]:
        workload = job(shards=3, encoding="png", job_id="job")
        lane = Lane(encoders=encoders, uploads=encoders)
        other = open_store(f"{store.config.uri}/{name}")
        runner = ShardRunner(workload, Tiles(), NoMeter(), other, lane=lane)
        started = [runner.start(shard, f"a{shard.index}") for shard in workload.shards()]
        return [future.result().record.objects[0].sha256 for future in started]

    assert digests(threads, f"t{threads}") == digests(2, "two")


def test_an_encoder_that_breaks_ends_the_attempt_and_frees_its_memory(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> None:
        raise Fatal("no space for tables")

    monkeypatch.setattr("cluster.pipeline.shard_runner.encode_batch", breaks)
    lane, workload = Lane(), job(shards=1, tiles_each=200)
    device = Tiles()
    runner = ShardRunner(workload, device, NoMeter(), store, lane=lane)
    with pytest.raises(Fatal, match="no space"):
        runner.run(workload.shard(0), "a")
    assert device.made < 200  # it did not go on generating
    assert lane.budget.used_bytes == 0


@pytest.mark.parametrize(
    ("device", "encode", "upload", "bottleneck"),
    [(9, 3, 1, "device"), (3, 9, 1, "encode"), (1, 3, 9, "upload"), (5, 5, 5, "device")],
)
def test_the_bottleneck_is_the_busiest_stage(
    device: float, encode: float, upload: float, bottleneck: str
) -> None:
    times = StageTimes(10, device, encode, upload)
    assert times.bottleneck == bottleneck
    assert times.shares == {"device": device / 10, "encode": encode / 10, "upload": upload / 10}
    assert (times + StageTimes(10)).shares == {
        "device": device / 20, "encode": encode / 20, "upload": upload / 20
    }  # fmt: skip


def test_nothing_is_said_of_stages_that_never_ran() -> None:
    assert StageTimes().shares is None
    assert StageTimes().bottleneck is None
