"""Profiles of hardware on which nothing was measured, estimated from data sheets. Pure.

images/s = utilisation x TFLOP/s / GFLOP per image; power is a share of the design power. Data
sheets are in ``cluster.hardware.datasheets``. All values are ``estimated`` with wide bounds: enough
to order hardware and to decide what to probe. The first measured windows replace them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cluster.hardware.datasheets import (
    ANY_GPU,
    CPU_HIGH,
    CPU_LOW,
    CPU_NOMINAL,
    GPU_HIGH,
    GPU_LOW,
    GPU_NOMINAL,
    cpu_named,
    gpu_named,
)
from cluster.scheduler.profiles import Profile
from cluster.scheduler.request import OperatingPoint, Performance, StandbyCost
from cluster.types import Precision

# (low, nominal, high) shares of the peak that this project's engines get to. On a CPU more than
# all of it: clocks rise, and a thread may have its core to itself.
# An H100 got to 0.18 at n = 1024, 0.46 at 4096 and 0.6 at 16384 (docs/gpu.md).
GPU_USE = (0.1, 0.3, 0.7)
FP8_GAIN = {"fp8": 1.2, "fp8-full": 1.55}  # over halves, of the same H100 at n = 4096
CPU_USE = (0.15, 0.5, 2.0)
GUESS_USE = (0.02, 0.3, 3.0)  # of hardware that is in no table
GPU_BUSY = (0.4, GPU_NOMINAL, GPU_HIGH)  # shares of the design power while it generates

# What a CUDA context adds to bare idle: 26 to 50 W on boards with HBM, 66 W on an L40S (Vadari,
# "The Model Parking Tax", arXiv:2605.23918, 2026). Other GDDR boards: in proportion to the L40S.
CONTEXT_HBM_W = 38.0
CONTEXT_GDDR_SHARE = 66 / 350

# From nothing to ready: a process that imports PyTorch, weights, warm-up.
GPU_LOAD_S, CPU_LOAD_S = 20.0, 6.0
_CPU_CLASS = re.compile(r"cpu\b(?P<name>.*?)(?: x(?P<threads>[1-9]\d*))?", re.IGNORECASE)


@dataclass(frozen=True)
class _Prior:
    """(low, nominal, high) speed and power while generating."""

    gflops: tuple[float, float, float]
    power_w: tuple[float, float, float]
    standby: StandbyCost


def prior_profile(
    hardware: str,
    model: str,
    gflop_per_image: float,
    *,
    batch_size: int,
    precision: Precision = "fp32",
) -> Profile:
    """The estimated profile of this hardware class with this model.

    hardware: as ``hardware_class`` names it, or any name the user chose; one that is in no table
    gets bounds so wide that it will be probed. batch_size: of the one operating point, which
    follows from the model and the kind of device (docs/adr/0002-tiles.md).
    """
    cpu = _CPU_CLASS.fullmatch(hardware)
    if cpu:
        prior = _cpu_prior(cpu["name"], int(cpu["threads"] or 1), precision)
    else:
        prior = _gpu_prior(hardware, precision)
    slow, usual, fast = prior.gflops
    low_w, power_w, high_w = prior.power_w
    performance = Performance(
        OperatingPoint(batch_size),
        usual / gflop_per_image,
        power_w,
        "estimated",
        low_j=low_w / fast * gflop_per_image,
        high_j=high_w / slow * gflop_per_image,
    )
    return Profile(hardware, model, prior.standby, (performance,))


def _gpu_prior(hardware: str, precision: Precision) -> _Prior:
    gpu = gpu_named(hardware) or ANY_GPU
    peak = 1e3 * gpu.fp32_tflops
    if precision == "fp32" and gpu.bf16:  # three products of halves (``un0.engine.precisions``)
        peak = max(peak, 1e3 * gpu.half_tflops / 3)
    elif precision == "fp16" or (precision == "bf16" and gpu.bf16):
        peak = 1e3 * gpu.half_tflops
    elif precision in FP8_GAIN:
        peak = 1e3 * gpu.half_tflops * FP8_GAIN[precision]
    slow, usual, fast = GUESS_USE if gpu is ANY_GPU else GPU_USE
    design_w = gpu.design_power_w
    low, nominal, high = GPU_BUSY
    context_w = CONTEXT_HBM_W if gpu.memory == "hbm" else CONTEXT_GDDR_SHARE * design_w
    idle_w = GPU_LOW * design_w + context_w
    return _Prior(
        (slow * peak, usual * peak, fast * peak),
        (low * design_w, nominal * design_w, high * design_w),
        StandbyCost(idle_w, GPU_LOAD_S, GPU_LOAD_S * idle_w),
    )


def _cpu_prior(name: str, threads: int, precision: Precision) -> _Prior:
    cpu = cpu_named(name)
    peak = threads * (cpu.fp32_gflops if precision == "fp32" else cpu.half_gflops)
    slow, usual, fast = CPU_USE
    return _Prior(
        (slow * peak, usual * peak, fast * peak),
        (threads * CPU_LOW.busy, threads * CPU_NOMINAL.busy, threads * CPU_HIGH.busy),
        StandbyCost(threads * CPU_NOMINAL.idle, CPU_LOAD_S, CPU_LOAD_S * CPU_NOMINAL.busy),
    )
