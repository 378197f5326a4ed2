"""What hardware does and draws, by its data sheets: one table, with source and year each. Pure.

CPU watts: per hardware thread, idle and busy, that Cloud Carbon Footprint (CCF, coefficients of
2023) derives from SPECpower_ssj2008 results. These are wall power of whole servers, memory and
fans included. Nominal is its average over AWS; low and high are the extremes of its list.

GPU load profile: shares of the power limit. Teads measured servers from idle (12 % of the design
power) over half load (75 %) to full load (102 %) for its dataset of EC2 instances (2021); CCF
applies idle and full load to GPUs as well, and so do we, with half load as the nominal value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Gpu:
    """A GPU's peak without sparsity, and its design power. half: fp16 and bf16 on tensor cores;
    bf16: False where the hardware has none, and runs it no faster than fp32."""

    name: str  # a regular expression
    fp32_tflops: float
    half_tflops: float
    design_power_w: float
    memory: Literal["hbm", "gddr"]
    source: str
    year: int
    bf16: bool = True


@dataclass(frozen=True)
class Cpu:
    """A processor's peak per hardware thread: fp32 operations a cycle of a core by its vector
    units, times its usual clock, over the threads that share the core."""

    name: str  # a regular expression
    fp32_gflops: float
    half_gflops: float
    source: str
    year: int


GPUS = (
    Gpu(r"B200", 75, 2250, 1000, "hbm", "NVIDIA Blackwell data sheet", 2024),
    Gpu(r"H200 NVL", 60, 835, 600, "hbm", "NVIDIA H200 data sheet", 2024),
    Gpu(r"H200", 67, 989, 700, "hbm", "NVIDIA H200 data sheet", 2023),
    Gpu(r"H100.*NVL", 60, 835, 350, "hbm", "NVIDIA H100 data sheet", 2023),
    Gpu(r"H100.*PCIe", 51, 756, 350, "hbm", "NVIDIA H100 data sheet", 2022),
    Gpu(r"H100", 67, 989, 700, "hbm", "NVIDIA H100 data sheet", 2022),
    Gpu(r"A100.*PCI", 19.5, 312, 300, "hbm", "NVIDIA A100 data sheet", 2021),
    Gpu(r"A100", 19.5, 312, 400, "hbm", "NVIDIA A100 data sheet", 2021),
    Gpu(r"L40S", 91.6, 362, 350, "gddr", "NVIDIA L40S data sheet", 2023),
    Gpu(r"L4\b", 30.3, 121, 72, "gddr", "NVIDIA L4 data sheet", 2023),
    Gpu(r"A10G", 35, 70, 150, "gddr", "NVIDIA A10G data sheet", 2021),
    Gpu(r"A10\b", 31.2, 125, 150, "gddr", "NVIDIA A10 data sheet", 2021),
    Gpu(r"V100.*PCI", 14, 112, 250, "hbm", "NVIDIA V100 data sheet", 2020, bf16=False),
    Gpu(r"V100", 15.7, 125, 300, "hbm", "NVIDIA V100 data sheet", 2020, bf16=False),
    Gpu(r"T4\b", 8.1, 65, 70, "gddr", "NVIDIA T4 data sheet", 2019, bf16=False),
)
CPUS = (
    Cpu(r"EPYC 9\w\w5", 96, 192, "AMD Zen 5 optimization guide: 64 a cycle", 2024),
    Cpu(r"EPYC 9", 48, 96, "AMD Zen 4 optimization guide: 32 a cycle", 2023),
    Cpu(r"EPYC", 42, 42, "AMD Zen 2 and 3 optimization guides: 32 a cycle", 2020),
    Cpu(r"Xeon", 70, 70, "Intel optimization manual: 64 a cycle with AVX-512", 2023),
    Cpu(r"Neoverse|Graviton|aarch64", 50, 50, "Arm optimization guides: 16 to 32 a cycle", 2022),
)
ANY_CPU = Cpu("", 40, 40, "a cautious guess: 32 a cycle", 2024)
ANY_GPU = Gpu("", 10, 20, 250, "hbm", "a cautious guess", 2024)

GPU_LOW, GPU_NOMINAL, GPU_HIGH = 0.12, 0.75, 1.02


@dataclass(frozen=True)
class CpuWatts:
    """Power of one hardware thread."""

    busy: float
    idle: float

    def energy_mj(self, busy_s: float, idle_s: float) -> int:
        return int(1e3 * (self.busy * busy_s + self.idle * idle_s))


CPU_LOW, CPU_NOMINAL, CPU_HIGH = CpuWatts(1.69, 0.45), CpuWatts(3.5, 0.74), CpuWatts(8.58, 3.04)


def gpu_named(name: str) -> Gpu | None:
    """The row of a GPU of that name, if it is in the table."""
    return next((gpu for gpu in GPUS if re.search(gpu.name, name)), None)


def cpu_named(name: str) -> Cpu:
    """The row of a processor of that name; a cautious guess if it is in no row."""
    return next((cpu for cpu in CPUS if re.search(cpu.name, name)), ANY_CPU)


def design_power_mw(gpu_name: str) -> int | None:
    """The design power of a GPU of that name, if it is in the table."""
    gpu = gpu_named(gpu_name)
    return None if gpu is None else round(1000 * gpu.design_power_w)
