"""Measure every engine and precision on this machine: speed, energy and share of peak speed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cluster.calibration import Point, Window, measure
from cluster.metering.bench import BenchMeter, bench_meter
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
