"""What the GPU engine's reduced precisions cost: 8-bit levels off the readable model in float64.

Mean and most over all values of some images: of a random model, of the parity fixtures' (where the
repository's tests are at hand) and of the bundled, trained one. On a CPU, PyTorch's operations
stand in for the kernels: they round alike and add up in float32. On a GPU it is the engine itself.

    python benchmarks/precision.py [--precision bf16 fp8 fp8-full] [--images 64] [--device cuda]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from engine_peers import readable_levels

from un0 import DEFAULT_MODEL, Un0Model, load_model
from un0.engine.base import DTYPES, FP8_PRECISIONS
from un0.engine.cuda import CudaEngine
from un0.engine.fused import FusedModel, fits
from un0.noise import initial_phases
from un0.testing import random_model

FIXTURES = Path(__file__).parents[1] / "tests" / "parity" / "fixtures"


def models() -> Iterator[tuple[str, Un0Model]]:
    yield "random, n = 64", random_model()
    yield "random, n = 1024", random_model(n=1024, n_cond=8, relativization="mean_relative")
    for path in sorted(FIXTURES.glob("*.pt")):
        yield path.stem, load_model(path)
    yield DEFAULT_MODEL, load_model(DEFAULT_MODEL)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--precision", nargs="+", choices=[*DTYPES, *FP8_PRECISIONS],
                        default=["bf16", "fp8", "fp8-full"])  # fmt: skip
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    print(f"{'mean / most levels off':24}" + "".join(f"{p:>14}" for p in options.precision))
    for name, model in models():
        c = model.config
        if not fits(c):
            continue
        phases = initial_phases(1, range(options.images), c.n + c.n_cond)
        class_ids = torch.arange(options.images) * 7 % c.num_classes
        expected = readable_levels(model, phases, class_ids)
        line = f"{name:24}"
        for precision in options.precision:
            make = (
                FusedModel(model, device, precision).from_phases
                if device.type == "cpu"
                else CudaEngine(model, device, precision, options.images)
            )
            images = make(phases.to(device), class_ids.to(device)).cpu()
            off = (images.int() - expected).abs()
            line += f"{f'{off.double().mean():.2f} / {off.max()}':>14}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
