"""Images/s and J/image of every size on a GPU, against the readable mathematics there.

Ours is ``un0.Sampler``: noise, integration, decoding, rounding and the copy to the host, with the
tile as large as the batch. The peers are the paper read aloud (``engine_peers.Plain``) under bf16
autocast, eager and through torch.compile, with torch.rand's noise and the copy to the host. Random
weights: neither speed nor energy depends on their values. Rounds are interleaved, windows last 2 s
or more, medians are reported. Shares are of FLOPs executed (sub-pixel decoder), against the bf16
product measured here and the data sheet's dense bf16.

    python benchmarks/engine_gpu.py [--n 1024 ...] [--batch 1 16 ...]
                                    [--precision bf16 fp8 fp8-full] [--peers eager compiled]
                                    [--decoding library fused] [--rounds 3] [--json]

Without a GPU it says so and ends well. --device cpu runs the same code on a CPU, as a check of
itself only; pair it with a small --n, --batch and --window.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from engine_peers import Plain, freshly_compiled
from joules import MIN_WINDOW_S, Cost, Meter

from un0 import ModelConfig, Sampler, Un0Model
from un0.catalog import RELEASED
from un0.engine import FP8_CAPABILITY, Precision
from un0.engine.base import FP8_PRECISIONS, to_uint8
from un0.engine.cuda import CudaEngine
from un0.engine.fused import DECODINGS, Decoding
from un0.testing import random_model
from un0.work import gemm_peak_flops_per_s, images_flops

SIZES = [released.config.n for released in RELEASED.values()]
BATCHES = [1, 16, 64, 256, 1024, 4096]
TILES_A_CALL = 32  # as a shard has: copies overlap with the next tile, but not with the last
COMPARED = 64  # images whose levels are compared with the readable model in fp32
# Dense bf16 TFLOP/s of NVIDIA's data sheets.
DATA_SHEET_TFLOPS = {
    r"B200": 2250, r"H200|H100.*HBM3|GH200": 989, r"H100 NVL": 835, r"H100": 756, r"A100": 312,
    r"L40S": 362, r"L4\b": 121, r"A10G?\b": 125,
}  # fmt: skip


@dataclass
class Side:
    """One engine at one batch: ``make`` produces images on the host and returns how many."""

    engine: str
    precision: str
    make: Callable[[], int]
    max_level_error: int | None
    costs: list[Cost] = field(default_factory=list)

    @property
    def images_per_s(self) -> float:
        return 1 / statistics.median(cost.seconds_each for cost in self.costs)

    def joules_each(self, bound: str) -> float | None:
        values = [v for cost in self.costs if (v := cost.joules_each(bound)) is not None]
        return statistics.median(values) if len(values) == len(self.costs) else None


def config_of(n: int) -> ModelConfig:
    """The released model of that size, else one of its family: CIFAR-10's up to n = 4096."""
    by_size = {released.config.n: released.config for released in RELEASED.values()}
    return by_size.get(n) or dataclasses.replace(by_size[1024 if n <= 4096 else 6656], n=n)


def data_sheet_tflops(name: str) -> float | None:
    found = (t for pattern, t in DATA_SHEET_TFLOPS.items() if re.search(pattern, name))
    return next(found, None)


def ours(
    model: Un0Model,
    device: torch.device,
    precision: Precision,
    batch: int,
    decoding: Decoding | None,
) -> Side:
    sampler = Sampler(model, device=str(device), precision=precision, tile=batch)
    name = f"un0-{sampler.engine_name}"
    if decoding is not None:  # no choice for users: it would be one more thing to agree on
        sampler._engine = CudaEngine(model, device, precision, batch, decoding=decoding)
        name = f"{name}, {decoding}"
    sampler.warm_up()
    class_ids = np.arange(TILES_A_CALL * batch) % model.config.num_classes
    made = sampler.generate(0, 0, class_ids[:COMPARED])
    error = np.abs(made.astype(int) - _readable(model, device, class_ids[:COMPARED])).max()

    def make() -> int:
        return sum(len(images) for _, images in sampler.generate_tiles(0, 0, class_ids))

    return Side(name, precision, make, int(error))


def peer(model: Un0Model, device: torch.device, batch: int, compiled: bool) -> Side:
    c = model.config
    class_ids = torch.arange(batch, device=device) % c.num_classes
    plain = Plain(model).to(device).eval()
    call = freshly_compiled(plain) if compiled else plain

    def make() -> int:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            phases = torch.rand(batch, c.n + c.n_cond, device=device) * (2 * torch.pi) - torch.pi
            return len(call(phases, class_ids).cpu())

    make()
    return Side("compiled" if compiled else "eager", "bf16", make, None)


@contextmanager
def left_out_if_too_large(what: str) -> Iterator[None]:
    """Say so, and go on, when memory runs out."""
    try:
        yield
    except torch.OutOfMemoryError:
        print(f"{what}: left out, it does not fit into memory beside the others", file=sys.stderr)
        torch.cuda.empty_cache()


def sides_of(
    model: Un0Model, device: torch.device, batch: int, options: argparse.Namespace
) -> Iterator[Side]:
    """Peers and ours."""
    for name in options.peers:
        with left_out_if_too_large(f"{name}, n = {model.config.n}, batch {batch}"):
            yield peer(model, device, batch, name == "compiled")
    for precision, decoding in itertools.product(options.precision, options.decoding):
        if precision != "fp8-full" or decoding != "library":  # it is always fused
            yield ours(model, device, precision, batch, decoding)


def _readable(model: Un0Model, device: torch.device, class_ids: Any) -> Any:
    from un0.noise import initial_phases

    width = model.config.n + model.config.n_cond
    with torch.no_grad():
        phases = initial_phases(0, range(len(class_ids)), width, device)
        images = model(phases, torch.from_numpy(class_ids).to(device))
    return to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()


def measure(
    n: int, batch: int, device: torch.device, options: argparse.Namespace, peaks: dict[str, Any]
) -> list[dict[str, Any]]:
    model = random_model(**dataclasses.asdict(config_of(n))).to(device)
    sides = list(sides_of(model, device, batch, options))
    with Meter(device) as meter:
        for _ in range(options.rounds):
            for side in sides:
                with left_out_if_too_large(f"{side.engine}, n = {n}, batch {batch}"):
                    side.costs.append(meter.measure(side.make, options.window))
    sides = [side for side in sides if side.costs]
    eager = next((side.images_per_s for side in sides if side.engine == "eager"), None)
    tflop = images_flops(model.config).sub_pixel / 1e12
    return [_row(n, batch, side, eager, tflop, peaks) for side in sides]


def _row(
    n: int, batch: int, side: Side, eager: float | None, tflop: float, peaks: dict[str, Any]
) -> dict[str, Any]:
    rate, sheet = side.images_per_s, peaks["data_sheet_tflops"]
    return {
        "n": n,
        "batch": batch,
        "engine": side.engine,
        "precision": side.precision,
        "images_per_s": rate,
        "ratio_to_eager": None if eager is None else rate / eager,
        "max_level_error": side.max_level_error,
        "energy_per_image_j": side.joules_each("energy_mj"),
        "energy_low_j": side.joules_each("low_mj"),
        "energy_high_j": side.joules_each("high_mj"),
        "energy_quality": side.costs[0].energy.quality,
        "share_of_measured_peak": rate * tflop / peaks["gemm_tflops"],
        "share_of_data_sheet": None if sheet is None else rate * tflop / sheet,
        **peaks,
    }


def show_heading(peaks: dict[str, Any], quality: str) -> None:
    print(
        f"{peaks['device']}, product at {peaks['gemm_tflops']:.3g} TFLOP/s, data sheet "
        f"{peaks['data_sheet_tflops'] or '-'}, torch {torch.__version__}, load average "
        f"{os.getloadavg()[0]:.1f}; energy {quality}"
    )
    print(f"{'n':>6} {'batch':>5}  {'engine':20} {'':8} {'images/s':>11} {'x eager':>8} "
          f"{'J/image':>10} {'of peak':>8} {'off by':>7}")  # fmt: skip


def show(row: dict[str, Any]) -> None:
    joules, ratio = row["energy_per_image_j"], row["ratio_to_eager"]
    error = row["max_level_error"]
    print(
        f"{row['n']:6d} {row['batch']:5d}  {row['engine']:20} {row['precision']:8} "
        f"{row['images_per_s']:11,.1f} {'-' if ratio is None else f'{ratio:.2f}':>8} "
        f"{'-' if joules is None else f'{joules:.3g}':>10} "
        f"{row['share_of_measured_peak']:8.1%} {'-' if error is None else error:>7}",
        flush=True,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, nargs="+", default=SIZES)
    parser.add_argument("--batch", type=int, nargs="+", default=BATCHES)
    parser.add_argument(
        "--precision", nargs="+", help="default: bf16, and both fp8 where it is known"
    )
    parser.add_argument(
        "--peers", nargs="*", choices=["eager", "compiled"], default=["eager", "compiled"]
    )
    parser.add_argument("--decoding", nargs="+", choices=DECODINGS, default=[None], help="GPU only")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window", type=float, default=MIN_WINDOW_S, help="seconds, at least")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    options = _options()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("skipped: PyTorch sees no GPU; --device cpu checks the benchmark itself",
              file=sys.stderr)  # fmt: skip
        if options.json:
            print("[]")
        return
    if options.precision is None:
        options.precision = ["bf16" if device.type == "cuda" else "fp32"]
        if device.type == "cuda" and torch.cuda.get_device_capability(device) >= FP8_CAPABILITY:
            options.precision += FP8_PRECISIONS
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    # Without a GPU it only checks itself: bf16 takes minutes on a CPU that does not have it
    peak_of: Precision = "bf16" if device.type == "cuda" else "fp32"
    peaks = {
        "device": name,
        "gemm_tflops": gemm_peak_flops_per_s(device, peak_of, torch.get_num_threads()) / 1e12,
        "data_sheet_tflops": data_sheet_tflops(name),
    }
    rows: list[dict[str, Any]] = []
    for n, batch in itertools.product(options.n, options.batch):
        found = measure(n, batch, device, options, peaks)
        if not options.json:  # at once: a run may be cut short
            if found and not rows:
                show_heading(peaks, found[0]["energy_quality"])
            for row in found:
                show(row)
        rows += found
    if options.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
