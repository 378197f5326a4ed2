"""Process start to first image, for each engine, with and without what earlier processes left.

Without caches nothing compiled is on the disk yet (``NUMBA_CACHE_DIR`` is an empty folder); the
operating system has read the files before. A process counts from its start, as the kernel tells
it, to the first image of the bundled model. Rounds are interleaved, medians printed.

    python benchmarks/cold_start.py [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

PATHS = [("cpu", "fp32"), ("cpu", "bf16"), ("cpu", "int8"), ("eager", "fp32"), ("eager", "bf16")]
START = """
import sys, psutil, time
import un0
model = un0.load_model(un0.DEFAULT_MODEL)
sampler = un0.Sampler(model, device="cpu", engine=sys.argv[1], precision=sys.argv[2])
sampler.generate(0, 0, [1])
print(time.time() - psutil.Process().create_time())
"""


def first_image_s(engine: str, precision: str, cache: str) -> float:
    """Seconds from the start of a process to its first image."""
    done = subprocess.run(
        [sys.executable, "-c", START, engine, precision],
        env={**os.environ, "NUMBA_CACHE_DIR": cache},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warm: dict[tuple[str, str], list[float]] = {path: [] for path in PATHS}
    cold: dict[tuple[str, str], float] = {}
    with tempfile.TemporaryDirectory() as shared:
        for path in PATHS:
            with tempfile.TemporaryDirectory() as empty:
                cold[path] = first_image_s(*path, empty)
            first_image_s(*path, shared)
        for _ in range(options.rounds):
            for path in PATHS:
                warm[path].append(first_image_s(*path, shared))
    rows = [
        {
            "engine": f"un0-{engine}",
            "precision": precision,
            "cached_s": statistics.median(warm[engine, precision]),
            "uncached_s": cold[engine, precision],
        }
        for engine, precision in PATHS
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
