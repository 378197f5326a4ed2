"""Process start to first image, for each engine, with and without what earlier processes left.

Without caches nothing compiled is on the disk yet (``NUMBA_CACHE_DIR`` and ``TRITON_CACHE_DIR`` are
empty folders); the operating system has read the files before. A process counts from just before
it is started to the first image of the bundled model. Rounds with caches are interleaved and
medians printed; without, it is one run. What this machine cannot do is left out.

    python benchmarks/cold_start.py [--rounds 5] [--engines cpu eager cuda] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch

from jobs.bench import paths
from un0 import DEFAULT_MODEL, load_model
from un0.engine import ENGINES

PRECISIONS = ("fp32", "bf16", "int8", "fp8-full")
START = """
import sys, time
import un0
model = un0.load_model(un0.DEFAULT_MODEL)
engine, precision, begin_s = sys.argv[1:]
device = "cuda" if engine == "cuda" else "cpu"
sampler = un0.Sampler(model, device=device, engine=engine, precision=precision)
sampler.generate(0, 0, [1])
print(time.time() - float(begin_s))
"""


def first_image_s(engine: str, precision: str, cache: str) -> float:
    """Seconds from the start of a process to its first image."""
    done = subprocess.run(
        [sys.executable, "-c", START, engine, precision, str(time.time())],
        env={**os.environ, "NUMBA_CACHE_DIR": cache, "TRITON_CACHE_DIR": f"{cache}/triton"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout)


def paths_here(engines: list[str]) -> list[tuple[str, str]]:
    """The (engine, precision) that this machine can run; "cuda" on its GPU, others on its CPU."""
    model = load_model(DEFAULT_MODEL)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return [
        (engine, precision)
        for device in devices
        for engine, precision in paths(model, torch.device(device))
        if engine in engines and precision in PRECISIONS
        if (engine == "cuda") == (device == "cuda")
    ]


def main() -> None:
    engines = [kind.name for kind in ENGINES]
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", nargs="+", choices=engines, default=engines)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    here = paths_here(options.engines)
    warm: dict[tuple[str, str], list[float]] = {path: [] for path in here}
    cold: dict[tuple[str, str], float] = {}
    with tempfile.TemporaryDirectory() as shared:
        for path in here:
            with tempfile.TemporaryDirectory() as empty:
                cold[path] = first_image_s(*path, empty)
            first_image_s(*path, shared)
        for _ in range(options.rounds):
            for path in here:
                warm[path].append(first_image_s(*path, shared))
    rows = [
        {
            "engine": f"un0-{engine}",
            "precision": precision,
            "cached_s": statistics.median(warm[engine, precision]),
            "uncached_s": cold[engine, precision],
        }
        for engine, precision in here
    ]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"load average {os.getloadavg()[0]:.1f}")
    print(f"{'engine':10}  {'':5}  {'cached':>7}  {'uncached':>8}")
    for row in rows:
        print(
            f"{row['engine']:10}  {row['precision']:5}  {row['cached_s']:5.1f} s"
            f"  {row['uncached_s']:6.1f} s"
        )


if __name__ == "__main__":
    main()
