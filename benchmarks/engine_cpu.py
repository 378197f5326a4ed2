"""Our CPU engines against the same mathematics written plainly, and in other runtimes.

Random weights: speed does not depend on their values. All use the same number of threads; ours
also make the initial phases, which the others are given. Rounds are interleaved; figures are
medians. ``max_level_error`` is against the readable model in float64, over at most 8 images.
``images_per_cpu_s`` divides by the processor time of all threads instead of the clock's: it says
more on a machine that others use, but counts threads that wait by spinning, which ours do not.

    python benchmarks/engine_cpu.py [--n 1024 2048 4096 6656] [--batch 1 16 64 256]
        [--engines un0-cpu eager ...] [--rounds 7] [--threads 2] [--json]

Needs ``pip install un0-cluster[bench]`` for ONNX Runtime and OpenVINO; without, they are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from time import process_time

import numpy as np
import torch
from engine_peers import Images, Make, Request, readable_levels

from cluster.clock import monotonic_s
from un0 import Sampler, Un0Model
from un0.engine import Precision
from un0.errors import InputError
from un0.testing import random_model
from un0.work import gemm_peak_flops_per_s, images_flops
from un0.workers import default_threads

BATCHES = {1024: [1, 16, 64, 256], 2048: [1, 16, 64, 256], 4096: [1, 16, 64, 256], 6656: [8, 32]}
CHECKED = 8  # images compared with the readable model
ROUND_S = 0.4  # a round repeats what takes less


@dataclass
class Row:
    n: int
    batch: int
    engine: str
    precision: str
    images_per_s: float
    ratio_to_eager: float | None
    max_level_error: int
    images_per_cpu_s: float


class Contender:
    """One way to make the request's images, and the rates of its rounds."""

    def __init__(self, engine: str, precision: str, make: Make) -> None:
        self.engine, self.precision, self.make = engine, precision, make
        self.images: Images = make()  # compiles, allocates, picks kernels
        make()
        self.rates: list[float] = []
        self.cpu_rates: list[float] = []

    def measure(self, batch: int) -> None:
        made, begin_s, begin_cpu_s = 0, monotonic_s(), process_time()
        while made == 0 or monotonic_s() - begin_s < ROUND_S:
            self.make()
            made += batch
        self.rates.append(made / (monotonic_s() - begin_s))
        self.cpu_rates.append(made / (process_time() - begin_cpu_s))

    @property
    def images_per_s(self) -> float:
        return statistics.median(self.rates)


def model_of(n: int) -> Un0Model:
    """Random weights in the shape of the released model of that size."""
    if n >= 6656:
        return random_model(n=n, n_cond=1, num_classes=1000, num_blocks=4, parameterization="mup")
    return random_model(n=n, n_cond=8, relativization="mean_relative")


def ours(request: Request, precision: Precision) -> Make:
    sampler = Sampler(
        request.model, device="cpu", engine="cpu", precision=precision, threads=request.threads
    )
    sampler.warm_up()
    class_ids = request.class_ids.numpy()
    return lambda: sampler.generate(0, 0, class_ids)


def contenders(request: Request) -> dict[str, tuple[str, str, Callable[[], Make]]]:
    """How to build each, by the name that ``--engines`` takes."""
    r = request
    known: dict[str, tuple[str, str, Callable[[], Make]]] = {
        "eager": ("eager", "fp32", r.eager),
        "torch.compile": ("torch.compile", "fp32", r.compiled),
        "onnxruntime": ("onnxruntime", "fp32", lambda: r.onnxruntime(r.onnx())),
        "openvino": ("openvino", "fp32", lambda: r.openvino(r.onnx())),
        "onnxruntime-int8": ("onnxruntime", "int8", lambda: r.onnxruntime(r.onnx_int8(False))),
        "openvino-int8": ("openvino", "int8", lambda: r.openvino(r.onnx_int8(True))),
        "un0-cpu": ("un0-cpu", "fp32", lambda: ours(r, "fp32")),
        "un0-cpu-bf16": ("un0-cpu", "bf16", lambda: ours(r, "bf16")),
        "un0-cpu-int8": ("un0-cpu", "int8", lambda: ours(r, "int8")),
    }
    return {name: how for name, how in known.items() if _installed(name)}


def _installed(name: str) -> bool:
    needs = {"onnxruntime": ["onnx", "onnxruntime"], "openvino": ["onnx", "openvino"]}
    modules = needs.get(name.removesuffix("-int8"), [])
    if name.endswith("-int8") and modules:
        modules = [*modules, "onnxruntime"]  # which quantises
    return all(find_spec(module) for module in modules)


def measure(request: Request, names: list[str] | None, rounds: int) -> list[Row]:
    """One row a contender, in the order of ``contenders``."""
    known = contenders(request)
    running = []
    for name in names or known:
        if name not in known:
            sys.exit(f"engine {name!r} is not known or not installed; there are {', '.join(known)}")
        engine, precision, build = known[name]
        try:
            running.append(Contender(engine, precision, build()))
        except InputError as error:  # bf16 wants a processor that has it
            print(f"  {name} is left out: {error}", file=sys.stderr, flush=True)
            continue
        print(f"  {name} is ready", file=sys.stderr, flush=True)
    for _ in range(rounds):
        for contender in running:
            contender.measure(request.batch)
    phases, class_ids = request.phases[:CHECKED], request.class_ids[:CHECKED]
    truth = readable_levels(request.model, phases, class_ids).numpy()
    eager = next((c.images_per_s for c in running if c.engine == "eager"), None)
    return [
        Row(
            request.model.config.n,
            request.batch,
            c.engine,
            c.precision,
            c.images_per_s,
            eager and c.images_per_s / eager,
            int(np.abs(c.images[:CHECKED].astype(int) - truth).max()),
            statistics.median(c.cpu_rates),
        )
        for c in running
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, nargs="+", default=sorted(BATCHES))
    parser.add_argument("--batch", type=int, nargs="+", help="default: by n, as in the docstring")
    parser.add_argument("--engines", nargs="+", help="default: all that are installed")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    peak = 0.0  # the best seen, before and after every measurement
    rows: list[Row] = []
    for n in options.n:
        model = model_of(n)
        for batch in options.batch or BATCHES.get(n, [1, 16, 64, 256]):
            before = gemm_peak_flops_per_s(torch.device("cpu"), "fp32", options.threads)
            rows += measure(Request(model, batch, options.threads), options.engines, options.rounds)
            after = gemm_peak_flops_per_s(torch.device("cpu"), "fp32", options.threads)
            peak = max(peak, before, after)
            if not options.json:
                show([row for row in rows if (row.n, row.batch) == (n, batch)], model, peak)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))


def show(rows: list[Row], model: Un0Model, peak: float) -> None:
    flops = images_flops(model.config).executed
    load = os.getloadavg()[0]
    print(f"\nn = {rows[0].n}, batch {rows[0].batch}; load average {load:.1f}, ", end="")
    print(f"fp32 GEMM peak {peak / 1e9:.0f} GFLOP/s")
    heads = f"{'images/s':>9}  {'x eager':>7}  {'of peak':>7}  {'per CPU s':>9}  {'levels off':>10}"
    print(f"{'':16}  {'':5}  {heads}")
    for row in rows:
        ratio = "-" if row.ratio_to_eager is None else f"{row.ratio_to_eager:.2f}"
        mine = row.engine.startswith("un0-") and row.precision == "fp32"
        share = f"{row.images_per_s * flops / peak:.0%}" if mine else "-"
        print(
            f"{row.engine:16}  {row.precision:5}  {row.images_per_s:9.1f}  {ratio:>7}  "
            f"{share:>7}  {row.images_per_cpu_s:9.1f}  {row.max_level_error:>10}",
            flush=True,
        )


if __name__ == "__main__":
    main()
