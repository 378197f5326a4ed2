"""The work in an image, and what a device could do of it: the roofline of ``un0 bench``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter

import torch
from torch import Tensor

from un0.config import SEED_SIZE, ModelConfig
from un0.engine.base import DTYPES, Precision
from un0.engine.gemm import has_packed_linear, prepare_gemm

PEAK_SIDE = 2048
PEAK_S = 0.5


@dataclass(frozen=True)
class ImageFlops:
    """Floating-point operations of products and convolutions in one image.

    plain: as the mathematics is written, K's product once for [sin; cos]. executed: as the CPU
    engine computes it, convolutions on transformed patches and the last one as nine products; the
    transforms themselves and the sines are not counted. sub_pixel: as the GPU engine computes it,
    with four taps for each output of an enlarging convolution.
    """

    plain: int
    executed: int
    sub_pixel: int


def images_flops(c: ModelConfig) -> ImageFlops:
    """The work in one image of a model."""
    stages = 1 if c.solver == "euler" else 4
    dynamics = c.num_steps * stages * 2 * 2 * c.n * (c.n + c.n_cond)
    plain = executed = sub_pixel = 0
    side = SEED_SIZE
    for c_in, c_out in pairwise(c.channels):
        side *= 2
        pixels = side * side
        plain += 2 * 9 * pixels * (c_in + c_out) * c_out
        # An output pixel takes 9 / 4 or 16 / 4 products of channels instead of 9.
        executed += 2 * 9 * pixels // 4 * c_in * c_out + 2 * 16 * pixels // 4 * c_out * c_out
        sub_pixel += 2 * pixels * (4 * c_in + 9 * c_out) * c_out
    last = 2 * 9 * side * side * c.channels[-1] * 3
    return ImageFlops(*(dynamics + convs + last for convs in (plain, executed, sub_pixel)))


def gemm_peak_flops_per_s(device: torch.device, precision: Precision, threads: int) -> float:
    """The fastest that a large product was seen to run on the device: 2048 cubed, or 8192 on a GPU.

    On a CPU each of ``threads`` threads runs products of its own through PyTorch's best library, in
    fp32 where that is faster: a processor without bf16 products can do no better. On a GPU fp32 is
    also three products of halves for one, as the GPU engine computes it.
    int8 and fp8 have no such library everywhere: their peak is given as that of bf16.
    """
    dtype = DTYPES.get(precision, torch.bfloat16)
    if device.type == "cpu" and not (dtype == torch.float32 or has_packed_linear(dtype)):
        return gemm_peak_flops_per_s(device, "fp32", threads)
    side = PEAK_SIDE if device.type == "cpu" else 4 * PEAK_SIDE
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    if device.type == "cpu":
        gemm = prepare_gemm(b, side)
        zero = torch.zeros_like(a)
        seconds = _best_of_threads(lambda: gemm(a, zero), threads)
        peak = threads * 2 * side**3 / seconds
        if dtype == torch.float32:
            return peak
        return max(peak, gemm_peak_flops_per_s(device, "fp32", threads))
    peak = 2 * side**3 / _best_on_gpu(lambda: a @ b)
    if dtype == torch.float32:
        return max(peak, gemm_peak_flops_per_s(device, "fp16", threads) / 3)
    return peak


def _best_of_threads(product: Callable[[], Tensor], threads: int) -> float:
    """Seconds of one product while every thread runs them: the mean over threads of their best."""
    ready = threading.Barrier(threads)

    def run() -> float:
        torch.get_num_threads()  # a thread's first call takes over the default
        torch.set_num_threads(1)
        product()
        ready.wait()
        best_s, begin_s = float("inf"), perf_counter()
        while perf_counter() - begin_s < PEAK_S:
            start_s = perf_counter()
            product()
            best_s = min(best_s, perf_counter() - start_s)
        return best_s

    before = torch.get_num_threads()
    try:
        with torch.inference_mode(), ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(lambda _: run(), range(threads))) / threads
    finally:
        torch.set_num_threads(before)


def _best_on_gpu(product: Callable[[], Tensor]) -> float:
    best_s, begin_s = float("inf"), perf_counter()
    while perf_counter() - begin_s < PEAK_S:
        torch.cuda.synchronize()
        start_s = perf_counter()
        product()
        torch.cuda.synchronize()
        best_s = min(best_s, perf_counter() - start_s)
    return best_s
