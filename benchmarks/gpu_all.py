"""All that a GPU is wanted for, in one run of bounded length: tests, then benchmarks, shortened.

Each part runs in a process of its own, writes what it prints to OUT/PART.txt, and is stopped at its
limit; a part that fails does not stop the next. The whole takes at most 17 minutes.

    python benchmarks/gpu_all.py [--out build/gpu] [--parts tests sizes ...]

docs/gpu.md says what each part is to show, and how to run it at full length.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
PYTEST = ["-m", "pytest", "-q", "-m", "gpu", "tests/gpu"]
if importlib.util.find_spec("xdist"):
    PYTEST += ["-n", "8"]
ENGINE = ["benchmarks/engine_gpu.py", "--rounds", "1"]
LARGE, SIZES = ["--batch", "256", "1024", "4096"], ["--n", "1024", "4096", "16384"]


@dataclass(frozen=True)
class Part:
    """One command, as arguments of Python, and the seconds it may take."""

    arguments: list[str]
    limit_s: float


PARTS: dict[str, Part] = {
    "tests": Part(PYTEST, 150),
    "precision": Part(
        ["benchmarks/precision.py", "--device", "cuda", "--precision", "fp32", "bf16", "fp8",
         "fp8-full"], 40,
    ),
    "sizes": Part(
        [*ENGINE, *SIZES, *LARGE, "--precision", "bf16", "fp8-full", "--peers"], 130,
    ),
    "against-eager": Part(
        [*ENGINE, *SIZES, "--batch", "256", "1024", "--precision", "fp32", "bf16", "fp8",
         "fp8-full", "--peers", "eager"], 120,
    ),
    "small-batches": Part(
        [*ENGINE, *SIZES, "--batch", "1", "16", "64", "--precision", "bf16", "--window", "1",
         "--peers", "eager"], 80,
    ),
    "other-sizes": Part(
        [*ENGINE, "--n", "2048", "6656", "10240", "--batch", "1024", "--precision", "bf16",
         "fp8-full", "--peers"], 50,
    ),
    "decoding": Part(
        [*ENGINE, *SIZES, "--batch", "1024", "--precision", "fp32", "bf16", "--window", "1",
         "--peers", "--decoding", "library", "fused"], 60,
    ),
    "compiled-peer": Part(
        [*ENGINE, "--n", "4096", "--batch", "1024", "--precision", "bf16", "--peers", "compiled"],
        80,
    ),
    "conventional-32": Part(
        ["benchmarks/conventional.py", "--size", "32", "--precision", "bf16", "--rounds", "1",
         "--batches", "512", "--compile"], 100,
    ),
    "conventional-64": Part(
        ["benchmarks/conventional.py", "--size", "64", "--precision", "bf16", "--rounds", "1",
         "--batches", "128"], 70,
    ),
    "cold-start": Part(["benchmarks/cold_start.py", "--rounds", "1", "--engines", "cuda"], 80),
    "energy": Part(
        ["benchmarks/gpu_energy.py", "--seconds", "10", "--batch-s", "2", "--precision", "bf16",
         "--batches", "64", "1024"], 60,
    ),
}  # fmt: skip


def run(name: str, part: Part, out: Path) -> str:
    """How it ended, in a word or two."""
    begin_s = time.monotonic()
    with (out / f"{name}.txt").open("w") as log:
        log.write(f"$ python {' '.join(part.arguments)}\n")
        log.flush()
        process = subprocess.Popen(
            [sys.executable, *part.arguments], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(part.limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # and whatever it has started
            process.wait()
            return f"stopped after {part.limit_s:.0f} s"
    how = "ok" if code == 0 else f"failed ({code})"
    return f"{how} in {time.monotonic() - begin_s:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: PyTorch sees no GPU", file=sys.stderr)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.parts:
        print(f"{name:14} {run(name, PARTS[name], options.out)}", flush=True)


if __name__ == "__main__":
    main()
