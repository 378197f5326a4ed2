"""What this machine does with a model, measured: images/s and joules by batch and precision, and of
the whole path into a store by encoding.

An image belongs to its batch: the batch is fixed for a model and a kind of device, so that every
machine makes the same bytes (docs/adr/0002-tiles.md). The sweep shows what other batches would do;
the profile holds the one that is used.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from cluster.end_to_end import Output, PathPoint, measure_paths, threads_here
from cluster.energy import MIN_WINDOW_S
from cluster.errors import UserError
from cluster.hardware.identify import hardware_class
from cluster.measuring import ROUNDS, Measured, OnStep, Window, engine_window
from cluster.metering.bench import BenchMeter, Idle, bench_meter
from cluster.scheduler.priors import prior_profile
from cluster.scheduler.profiles import Profile
from cluster.scheduler.request import StandbyCost
from cluster.storage.object_store import ObjectStore
from cluster.types import Energy, Precision, model_key
from un0 import Sampler, Un0Model, load_model
from un0.machine import cpus_here, machine_cpus

IDLE_S = 3.0
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
CPU_BATCHES, GPU_BATCHES = (8, 16, 32, 64, 128), (64, 128, 256, 512, 1024)
KEEP_BYTES = 2 * 2**30  # of weights: up to this all samplers stay, and windows are interleaved


@dataclass(frozen=True)
class Point(Measured):
    """One batch at one precision. used: the batch that the project uses on this kind of device."""

    precision: Precision
    batch_size: int
    used: bool
    windows: tuple[Window, ...] = ()


@dataclass(frozen=True)
class Load:
    """From a file to a model that is ready, in a process that has PyTorch."""

    precision: Precision
    duration_s: float
    energy: Energy


@dataclass(frozen=True)
class Calibration:
    """All that was measured. hardware: the class by which the fleet knows this machine.

    paths: of the whole path, at the batch that is used.
    """

    hardware: str
    provider: str
    model: str
    model_rev: str
    threads: int
    idle: Idle
    loads: tuple[Load, ...]
    points: tuple[Point, ...]
    paths: tuple[PathPoint, ...] = ()

    def share_of_best(self, point: Point) -> float:
        """Its images/s over those of the fastest batch at its precision."""
        rates = [p.images_per_s for p in self.points if p.precision == point.precision]
        return point.images_per_s / max(rates)

    def profiles(self) -> list[Profile]:
        """One for each precision whose joules are known, with the point that is used. An idle
        power that could not be measured is that of the prior."""
        found = []
        for load in self.loads:
            used = (p for p in self.points if p.used and p.precision == load.precision)
            performance = next((point.performance() for point in used), None)
            if performance is None or load.energy.energy_mj is None:
                continue
            key = model_key(self.model_rev, load.precision)
            idle_w = self.idle.power_w
            if idle_w is None:
                batch_size = performance.point.batch_size
                guess = prior_profile(self.hardware, key, 1.0, batch_size=batch_size)
                idle_w = guess.standby.idle_w
            standby = StandbyCost(idle_w, load.duration_s, load.energy.energy_mj / 1e3)
            paths = (path.pipeline() for path in self.paths if path.precision == load.precision)
            pipelines = tuple(known for known in paths if known is not None)
            found.append(Profile(self.hardware, key, standby, (performance,), pipelines))
        return found


def calibrate(
    model: str,
    *,
    precisions: Sequence[Precision] = PRECISIONS,
    batches: Sequence[int] | None = None,
    seconds: float = MIN_WINDOW_S,
    rounds: int = ROUNDS,
    outputs: Sequence[Output] = (),
    store: ObjectStore | None = None,
    on_step: OnStep = lambda _done, _total, _what: None,
) -> Calibration:
    """Measure this machine's GPU, or its CPUs if it has none, as one replica uses them.

    batches: besides the one that is used. outputs: of the whole path into the store, by default
    into a local directory of its own. seconds: of each window, at least two; every point gets
    ``rounds`` of them, interleaved between points while the samplers fit in memory, so that a slow
    spell of the machine does not fall on one point alone.
    Raises InputError for a precision the device cannot run, UserError for a window too short.
    """
    if not MIN_WINDOW_S <= seconds < math.inf:
        raise UserError(f"--seconds {seconds:g}: joules need windows of at least {MIN_WINDOW_S:g}")
    gpu = torch.cuda.is_available()
    cpus = cpus_here()
    threads = threads_here(torch.device("cuda" if gpu else "cpu"))
    cpu_share = min(1.0, threads / machine_cpus())
    with bench_meter("cuda" if gpu else "cpu") as bench:
        loads: list[Load] = []
        for number, precision in enumerate(precisions):
            on_step(number, len(precisions), f"loading in {precision}")
            with bench.window() as metered:
                loaded = load_model(model)
                sampler = Sampler(loaded, precision=precision, threads=threads)
                sampler.warm_up()
            loads.append(Load(precision, metered.duration_s, metered.energy))
        on_step(0, 1, "idling")
        idle = bench.idle(IDLE_S, cpu_share)
        used = sampler.tile
        sizes = sorted({used, *(batches or (GPU_BATCHES if gpu else CPU_BATCHES))})
        points = _sweep(
            [Point(precision, size, size == used) for precision in precisions for size in sizes],
            lambda p: _sampler(loaded, p, threads),
            bench,
            seconds,
            rounds,
            interleaved=4 * loaded.config.num_params * len(precisions) * len(sizes) <= KEEP_BYTES,
            on_step=on_step,
        )
        paths: list[PathPoint] = []
        for precision in precisions if outputs else ():
            ready = _sampler(loaded, Point(precision, used, used=True), threads)
            if ready is not None:
                paths += measure_paths(
                    ready, outputs, bench, store, seconds=seconds, rounds=rounds, on_step=on_step
                )
    return Calibration(
        hardware=hardware_class(bench.device.hw_name if gpu else None, threads, cpus=cpus.share),
        provider=bench.provider,
        model=model,
        model_rev=loaded.rev,
        threads=threads,
        idle=idle,
        loads=tuple(loads),
        points=tuple(points),
        paths=tuple(paths),
    )


def _sweep(
    points: Sequence[Point],
    build: Callable[[Point], Sampler | None],
    bench: BenchMeter,
    seconds: float,
    rounds: int,
    *,
    interleaved: bool,
    on_step: OnStep,
) -> list[Point]:
    """The points with their windows; those that do not fit in memory are left out."""
    each = [p for _ in range(rounds) for p in points]
    order = each if interleaved else sorted(each, key=points.index)
    samplers: dict[Point, Sampler | None] = {}
    windows: dict[Point, list[Window]] = defaultdict(list)
    for number, point in enumerate(order):
        on_step(number, len(order), f"{point.precision}, batches of {point.batch_size}")
        if point not in samplers:
            if not interleaved:
                samplers.clear()
            samplers[point] = build(point)
        sampler = samplers[point]
        if sampler is not None:
            windows[point].append(engine_window(bench, sampler, seconds))
    return [replace(p, windows=tuple(windows[p])) for p in points if windows[p]]


def _sampler(loaded: Un0Model, point: Point, threads: int) -> Sampler | None:
    """A warm sampler of that batch; None if the device has no room for it."""
    try:
        sampler = Sampler(loaded, precision=point.precision, tile=point.batch_size, threads=threads)
        sampler.warm_up()
    except torch.OutOfMemoryError:
        return None
    return sampler
