"""Measure every engine and precision on this machine: speed, energy and share of peak speed; and
the whole path from an engine into a store, by encoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cluster.calibration import Point
from cluster.end_to_end import Output, PathPoint, measure_paths, threads_here
from cluster.measuring import OnStep, Window, measure
from cluster.metering.bench import BenchMeter, bench_meter
from cluster.stage_times import Stage
from cluster.storage.object_store import ObjectStore
from cluster.types import EnergyQuality, Precision
from un0 import Sampler, Un0Model
from un0.engine import ENGINES
from un0.engine.base import DTYPES, PRECISIONS
from un0.work import gemm_peak_flops_per_s, images_flops


@dataclass(frozen=True)
class BenchRow:
    """One engine and precision at one batch size.

    energy_per_image_j: with what the device drew in the window, by its best meter; bounds where
    that is an estimate, None where nothing is known. roofline_share: operations executed a second
    over the fastest product measured in the same precision; None for int8 and fp8, which mix.
    """

    engine: str
    precision: str
    batch: int
    images_per_s: float
    energy_per_image_j: float | None
    energy_low_j: float | None
    energy_high_j: float | None
    energy_quality: EnergyQuality
    roofline_share: float | None


@dataclass(frozen=True)
class PathRow:
    """The whole path from one engine and precision into a store, with images written in one way.

    images_per_s: from the engine to the commit; engine_images_per_s is the engine's alone, measured
    in turn with it, and engine_share what of that is reached. energy_per_image_j: what the device
    drew for an image, at work and waiting; host_energy_per_image_j: the CPUs beside a GPU, None on
    CPUs and where they have no meter. bytes_per_image: of the files. stage_share: of the time, how
    much device, encode and upload were busy; the bottleneck is the busiest.
    """

    engine: str
    precision: str
    batch: int
    encoding: str
    compression: str | None
    images_per_s: float
    engine_images_per_s: float
    engine_share: float
    energy_per_image_j: float | None
    energy_low_j: float | None
    energy_high_j: float | None
    energy_quality: EnergyQuality
    host_energy_per_image_j: float | None
    host_energy_low_j: float | None
    host_energy_high_j: float | None
    host_energy_quality: EnergyQuality | None
    bytes_per_image: float
    stage_share: dict[Stage, float] | None
    bottleneck: Stage | None


def paths(model: Un0Model, device: torch.device) -> Iterator[tuple[str, Precision]]:
    """The engines and precisions that fit the model and the device."""
    for kind in ENGINES:
        for precision in PRECISIONS:
            emulated = device.type == "cpu" and precision == "fp16"
            if not emulated and kind.fits(model.config, device, precision):  # type: ignore[arg-type]
                yield kind.name, precision  # type: ignore[misc]


def bench(
    model: Un0Model,
    device: torch.device,
    wanted: Sequence[tuple[str, Precision]],
    batches: Sequence[int],
    window_s: float,
) -> Iterator[BenchRow]:
    """Rows, path by path, each measured for ``window_s`` seconds after a warm-up."""
    flops = images_flops(model.config)
    peaks: dict[str, float] = {}
    with bench_meter(device.type) as meter:
        for engine, precision in wanted:
            sampler = Sampler(model, device=str(device), precision=precision, engine=engine)
            sampler.warm_up()
            if precision in DTYPES and precision not in peaks:
                peaks[precision] = gemm_peak_flops_per_s(device, precision, sampler.threads)
            executed = {"eager": flops.plain, "cuda": flops.sub_pixel}.get(engine, flops.executed)
            for batch in batches:
                window = _window(meter, sampler, batch, window_s)
                point = Point(precision, batch, used=True, windows=(window,))
                yield _row(point, sampler.engine_name, executed, peaks.get(precision))


def bench_paths(
    model: Un0Model,
    device: torch.device,
    wanted: Sequence[tuple[str, Precision]],
    outputs: Sequence[Output],
    window_s: float,
    store: ObjectStore | None = None,
    on_step: OnStep = lambda _done, _total, _what: None,
) -> Iterator[PathRow]:
    """Rows of the whole path, engine by engine: medians of windows of ``window_s`` seconds.

    store: None is a local directory that is removed. What is written is deleted in either.
    """
    threads = threads_here(device)
    with bench_meter(device.type) as meter:
        for name, precision in wanted:
            sampler = Sampler(
                model, device=str(device), precision=precision, engine=name, threads=threads
            )
            found = measure_paths(sampler, outputs, meter, store, seconds=window_s, on_step=on_step)
            yield from map(path_row, found)


def path_row(path: PathPoint) -> PathRow:
    """Its figures."""
    low_j, high_j = path.bounds_j
    host_low_j, host_high_j = path.host_bounds_j
    return PathRow(
        engine=f"un0-{path.engine}",
        precision=path.precision,
        batch=path.batch_size,
        encoding=path.output.encoding,
        compression=path.output.page_compression,
        images_per_s=path.images_per_s,
        engine_images_per_s=path.alone.images_per_s,
        engine_share=path.engine_share,
        energy_per_image_j=path.energy_per_image_j,
        energy_low_j=low_j,
        energy_high_j=high_j,
        energy_quality=path.quality,
        host_energy_per_image_j=path.host_energy_per_image_j,
        host_energy_low_j=host_low_j,
        host_energy_high_j=host_high_j,
        host_energy_quality=path.host_quality,
        bytes_per_image=path.bytes_per_image,
        stage_share=path.times.shares,
        bottleneck=path.times.bottleneck,
    )


def _window(meter: BenchMeter, sampler: Sampler, batch: int, window_s: float) -> Window:
    """A window of requests for ``batch`` images each, after one that does not count."""
    class_ids = np.arange(batch) % sampler.config.num_classes

    def make(first: int, count: int) -> None:
        for start in range(first, first + count, batch):
            sampler.generate(0, start, class_ids)

    make(0, batch)
    return measure(meter, make, batch, window_s)


def _row(point: Point, engine: str, flops: int, peak_flops_per_s: float | None) -> BenchRow:
    low_j, high_j = point.bounds_j
    return BenchRow(
        engine=f"un0-{engine}",
        precision=point.precision,
        batch=point.batch_size,
        images_per_s=point.images_per_s,
        energy_per_image_j=point.energy_per_image_j,
        energy_low_j=low_j,
        energy_high_j=high_j,
        energy_quality=point.quality,
        roofline_share=peak_flops_per_s and point.images_per_s * flops / peak_flops_per_s,
    )
