"""The whole path from an engine into a store, as it is measured."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cluster.end_to_end import EnginePoint, Output, PathPoint, encoders_here, measure_paths
from cluster.errors import Fatal
from cluster.measuring import Window, measure
from cluster.metering.bench import BenchMeter, Metered
from cluster.pipeline.encode import encode_batch
from cluster.pipeline.encoded import Encoded
from cluster.stage_times import StageTimes
from cluster.storage.chunks import Chunks
from cluster.storage.local import LocalStore
from cluster.storage.object_store import ObjectStore, StoreConfig
from cluster.storage.open import open_store
from cluster.types import MISSING_ENERGY, Energy, ImageEncoding
from un0 import Sampler

COUNTED = Energy(energy_mj=8000, quality="measured_counter", method="test")
TILE = 64


class Meter:
    """Says the same joules of every window. open: whether one is, now."""

    open = False

    @contextmanager
    def window(self) -> Iterator[Metered]:
        metered, began_s = Metered(), time.monotonic()
        self.open = True
        yield metered
        self.open = False
        metered.energy, metered.duration_s = COUNTED, time.monotonic() - began_s


class Engine:
    """A sampler that has its images ready, and takes its time to hand them out."""

    tile, threads, image_size, precision = TILE, 1, 8, "fp32"
    engine_name, model_rev, labels = "ready", "0" * 64, ("ant", "bee")
    device = torch.device("cpu")

    @dataclass
    class Config:
        num_classes: int = 2

    config = Config()

    def __init__(self) -> None:
        self.images = np.random.default_rng(0).integers(0, 256, (TILE, 8, 8, 3), np.uint8)

    def warm_up(self) -> None: ...

    def generate_tiles(
        self, _seed: int, _start: int, class_ids: NDArray[np.int64]
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for offset in range(0, len(class_ids), TILE):
            time.sleep(0.005)
            yield offset, self.images[: len(class_ids) - offset]


class Watched(LocalStore):
    """Counts what is put, and what of it was put outside of a window."""

    puts = strays = 0
    meter: Meter | None = None

    def put(self, key: str, data: bytes | Chunks) -> None:
        super().put(key, data)
        self.puts += 1
        self.strays += self.meter is not None and not self.meter.open


@pytest.fixture(autouse=True)
def short_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.end_to_end.SHARD_S", 0.02)


def paths(
    store: ObjectStore | None, *outputs: Output, meter: Meter | None = None, **options: Any
) -> list[PathPoint]:
    sampler = cast(Sampler, Engine())
    bench = cast(BenchMeter, meter or Meter())
    settings: dict[str, Any] = {"seconds": 0.02, "rounds": 1, **options}
    return measure_paths(sampler, outputs, bench, store, **settings)


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    open_store(str(tmp_path))
    return Watched(StoreConfig(tmp_path.as_uri()))


def test_every_output_is_measured_in_every_round_and_the_engine_with_it() -> None:
    steps: list[str] = []
    png, raw = paths(
        None, Output("png"), Output("raw", "none"), rounds=2,
        on_step=lambda done, total, what: steps.append(f"{done} of {total}: {what}"),
    )  # fmt: skip
    assert steps == [
        f"{number} of 6: fp32, {what}"
        for number, what in enumerate(
            2 * ["engine alone", "png into the store", "raw/none into the store"]
        )
    ]
    for path in (png, raw):
        assert (len(path.windows), len(path.alone.windows)) == (2, 2)
        assert path.images_per_s > 0
        assert path.times.bottleneck in ("device", "encode", "upload")
        assert path.host_energy_per_image_j is path.host_quality is None
    pixels = 8 * 8 * 3
    assert png.bytes_per_image > 50
    assert pixels < raw.bytes_per_image < 3 * pixels, "small files"


def test_a_window_holds_the_commit_of_all_its_images_and_nothing_stays_in_the_store(
    store: Watched, tmp_path: Path
) -> None:
    (warm,) = paths(store, Output("jpeg"))
    store.meter, store.puts = Meter(), 0
    paths(store, Output("jpeg"), meter=store.meter)
    assert store.puts > 1
    assert store.strays == 1, "the one that warms up"
    assert [info.key for info in store.list("")] == []
    assert warm.windows[0].images % TILE == 0
    assert not [path for path in (tmp_path / "jobs").rglob("*") if path.is_file()]


def test_a_host_that_holds_its_device_up_is_named(
    store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(images: NDArray[np.uint8], encoding: ImageEncoding) -> Encoded:
        time.sleep(0.1)
        return encode_batch(images, encoding)

    monkeypatch.setattr("cluster.pipeline.shard_runner.encode_batch", slow)
    (path,) = paths(store, Output("raw", "none"))
    assert path.times.bottleneck == "encode"


def test_what_the_store_refuses_is_raised_and_leaves_nothing(store: Watched) -> None:
    def refuse(_key: str, _data: bytes | Chunks) -> None:
        raise Fatal("no right to write")

    store.put = refuse  # type: ignore[method-assign]
    with pytest.raises(Fatal, match="no right to write"):
        paths(store, Output("raw"))
    assert list(store.list("")) == []


def test_what_the_scheduler_gets_is_the_path_not_the_engine() -> None:
    engine = EnginePoint(TILE, (Window(8000, 2.0, COUNTED),))
    window = Window(1000, 2.0, COUNTED)
    path = PathPoint("e", "fp32", TILE, Output("raw"), (window,), engine, StageTimes(2, 1), 10)
    assert path.engine_share == 0.125
    known = path.pipeline()
    assert known is not None
    assert known.encoding == "raw/zstd"
    assert (known.performance.images_per_s, known.performance.power_w) == (500, 4)
    dark = Window(1000, 2.0, MISSING_ENERGY)
    unknown = PathPoint("e", "fp32", TILE, Output("png"), (dark,), engine, StageTimes(2, 1), 10)
    assert unknown.pipeline() is None


def test_the_cpus_beside_a_gpu_are_known_only_where_all_windows_know_them() -> None:
    host = Energy(energy_mj=2000, low_mj=1000, high_mj=4000, quality="estimated", method="test")
    engine = EnginePoint(TILE, (Window(1000, 2.0, COUNTED, host),))
    assert engine.host_energy_per_image_j == 2e-3
    assert engine.host_bounds_j == (1e-3, 4e-3)
    assert engine.host_quality == "estimated"
    half = EnginePoint(TILE, (*engine.windows, Window(1000, 2.0, COUNTED)))
    assert half.host_energy_per_image_j is None


@pytest.mark.parametrize("most", [None, TILE])
def test_a_window_lasts_as_long_as_is_asked_and_until_all_is_finished(most: int | None) -> None:
    meter = Meter()
    made: list[tuple[int, int]] = []
    finished: list[bool] = []

    def make(first: int, count: int) -> None:
        made.append((first, count))
        time.sleep(0.001)

    window = measure(
        cast(BenchMeter, meter), make, TILE, 0.01,
        most=most, finish=lambda: finished.append(meter.open),
    )  # fmt: skip
    assert finished == [True]
    assert window.images == sum(count for _, count in made)
    assert [first for first, _ in made] == [sum(c for _, c in made[:n]) for n in range(len(made))]
    assert all(count % TILE == 0 and count <= (most or count) for _, count in made)


def test_a_cpu_replica_has_one_encoder() -> None:
    assert encoders_here(torch.device("cpu")) == 1
