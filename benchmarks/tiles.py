"""How fast a sampler is by model size, tile size and threads, against the readable model.

Best of several interleaved rounds; random weights. "per CPU-second" divides by processor time
instead of the clock's, which says what the work costs on a machine that others use too.

    python benchmarks/tiles.py [--n 512 1024 4096] [--tiles 16 32 64 128 256] [--threads 1 2]
                               [--rounds 5] [--precision fp32] [--device cpu]
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from un0 import Sampler, Un0Model
from un0.engine.base import to_uint8
from un0.noise import initial_phases
from un0.testing import random_model


@dataclass
class Best:
    """The best rates seen so far of one way to make images."""

    name: str
    make: Callable[[], int]
    per_s: float = 0.0
    per_cpu_s: float = 0.0

    def measure(self) -> None:
        begin_s, begin_cpu_s = time.perf_counter(), _cpu_s()
        images = self.make()
        wall_s, cpu_s = time.perf_counter() - begin_s, _cpu_s() - begin_cpu_s
        self.per_s = max(self.per_s, images / wall_s)
        self.per_cpu_s = max(self.per_cpu_s, images / cpu_s)


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def sampler_row(model: Un0Model, tile: int, threads: int, options: argparse.Namespace) -> Best:
    sampler = Sampler(
        model, device=options.device, precision=options.precision, tile=tile, threads=threads
    )
    sampler.warm_up()
    class_ids = np.arange(max(2 * tile * threads, options.images)) % model.config.num_classes
    return Best(
        f"tile {tile:4d}, threads {threads}", lambda: len(sampler.generate(0, 0, class_ids))
    )


def readable_row(model: Un0Model, rows: int = 64) -> Best:
    class_ids = torch.arange(rows) % model.config.num_classes
    width = model.config.n + model.config.n_cond

    def make() -> int:
        with torch.inference_mode():
            return len(to_uint8(model(initial_phases(0, range(rows), width), class_ids)))

    return Best(f"readable model, batch {rows}", make)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, nargs="+", default=[512, 1024, 4096])
    parser.add_argument("--tiles", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=256, help="in one round, at least")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print(f"{'n':>6}  {'':26}  {'images/s':>9}  {'per CPU-second':>14}")
    for n in options.n:
        model = random_model(n=n, n_cond=8 if n >= 1024 else 1)
        rows = [readable_row(model)] if options.device == "cpu" else []
        rows += [
            sampler_row(model, tile, threads, options)
            for threads in options.threads
            for tile in options.tiles
        ]
        for _ in range(options.rounds):
            for row in rows:
                row.measure()
        for row in rows:
            print(f"{n:6d}  {row.name:26}  {row.per_s:9.1f}  {row.per_cpu_s:14.1f}", flush=True)


if __name__ == "__main__":
    main()
