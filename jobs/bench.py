"""Measure every engine and precision on this machine: speed, energy and share of peak speed."""

from __future__ import annotations

import socket
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from cluster.clock import monotonic_ns, monotonic_s
from cluster.ledger.usage import Use
from cluster.ledger.writer import EnergyLog
from cluster.metering.node import NodeMeter
from cluster.metering.seat import Seat, take_seat
from cluster.storage.open import open_store
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
    with _meter() as meter:
        seat = take_seat(uuid.uuid4().hex, device.type)
        meter.sit(seat)
        for engine, precision in wanted:
            sampler = Sampler(model, device=str(device), precision=precision, engine=engine)
            sampler.warm_up()
            if precision in DTYPES and precision not in peaks:
                peaks[precision] = gemm_peak_flops_per_s(device, precision, sampler.threads)
            executed = {"eager": flops.plain, "cuda": flops.sub_pixel}.get(engine, flops.executed)
            for batch in batches:
                yield _measure(
                    meter, seat, sampler, batch, window_s, executed, peaks.get(precision)
                )


def _measure(
    meter: NodeMeter,
    seat: Seat,
    sampler: Sampler,
    batch: int,
    window_s: float,
    flops: int,
    peak_flops_per_s: float | None,
) -> BenchRow:
    class_ids = np.arange(batch) % sampler.config.num_classes
    sampler.generate(0, 0, class_ids)
    attempt_id, images = uuid.uuid4().hex, 0
    start_ns, start_s = monotonic_ns(), monotonic_s()
    meter.begin(Use(start_ns, None, "job", attempt_id, seat.replica_id))
    while monotonic_s() - start_s < window_s:
        sampler.generate(0, images, class_ids)
        images += batch
    images_per_s = images / (monotonic_s() - start_s)
    energy = meter.end(
        Use(start_ns, monotonic_ns(), "job", attempt_id, seat.replica_id, images=images)
    )

    def each_j(whole_mj: int | None) -> float | None:
        return None if whole_mj is None else whole_mj / 1e3 / images

    return BenchRow(
        engine=f"un0-{sampler.engine_name}",
        precision=sampler.precision,
        batch=batch,
        images_per_s=images_per_s,
        energy_per_image_j=each_j(energy.energy_mj),
        energy_low_j=each_j(energy.low_mj),
        energy_high_j=each_j(energy.high_mj),
        energy_quality=energy.quality,
        roofline_share=peak_flops_per_s and images_per_s * flops / peak_flops_per_s,
    )


@contextmanager
def _meter() -> Iterator[NodeMeter]:
    """This machine's meter, with a temporary log."""
    with tempfile.TemporaryDirectory() as folder:
        log = EnergyLog(open_store(folder, probe=False), socket.gethostname(), cluster_id="bench")
        meter = NodeMeter(log, 0)
        try:
            yield meter
        finally:
            meter.close()
