"""Seconds and joules per image against conventional generators, on one device, in one run.

At 32x32: the DDPM U-Net of CIFAR-10 (35.7 M parameters, ``google/ddpm-cifar10-32``)
with 1,000 steps, and with DDIM's 50. At 64x64: the ADM U-Net of ImageNet (296 M), which EDM's
sampler evaluates 79 times. Each also once: what a one-step generator of that network would take.

Weights are random on both sides; time does not depend on them. A peer's evaluation is measured and
multiplied by how many an image takes; its sampler's own arithmetic is left out, in its favour. It
runs in its best form: NCHW or channels-last, compiled with --compile, all cores to a batch or a
batch to each, and its best batch, each tried first. Rounds are interleaved, medians are reported.
FIDs are the publications', printed so that joules are not mistaken for quality: the evaluators
differ, and they are no ranking.

    python benchmarks/conventional.py [--size 32 64] [--precision fp32 bf16] [--rounds 3]
                                      [--device auto] [--compile] [--batches 1 4 16] [--json]
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from joules import Cost, Meter

from cluster.clock import monotonic_s
from un0 import Sampler
from un0.catalog import RELEASED
from un0.engine import Precision
from un0.engine.base import DTYPES
from un0.testing import random_model

CIFAR_UNET: dict[str, Any] = {
    "sample_size": 32,
    "block_out_channels": (128, 256, 256, 256),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
ADM_UNET: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (192, 384, 576, 768),
    "layers_per_block": 3,
    "down_block_types": ("ResnetDownsampleBlock2D",) + ("AttnDownBlock2D",) * 3,
    "up_block_types": ("AttnUpBlock2D",) * 3 + ("ResnetUpsampleBlock2D",),
    "attention_head_dim": 64,
    "num_class_embeds": 1000,
    "resnet_time_scale_shift": "scale_shift",
    "upsample_type": "resnet",
    "downsample_type": "resnet",
}


@dataclass(frozen=True)
class Peer:
    """A sampler over a U-Net: how often it evaluates it, and the quality that was published."""

    name: str
    evaluations: int
    fid: str


@dataclass(frozen=True)
class Contest:
    """One resolution: our model and the peers that share a U-Net."""

    model: str
    unet: dict[str, Any]
    million_params: float
    batches: tuple[int, ...]
    peers: tuple[Peer, ...]


CONTESTS = {
    32: Contest(
        "cifar10/n4096", CIFAR_UNET, 35.7, (1, 8, 32),
        (
            Peer("DDPM, 1,000 steps", 1000, "3.17 (Ho et al. 2020)"),
            Peer("DDIM, 50 steps", 50, "4.67 (Song, Meng & Ermon 2021)"),
            Peer("same U-Net, 1 step", 1, "3.55 on another U-Net (Song et al. 2023, CD)"),
        ),
    ),
    64: Contest(
        "imagenet64/n16384", ADM_UNET, 295.9, (1, 4),
        (
            Peer("EDM, 79 evaluations", 79, "2.44 (EDM, as given by Song et al. 2023)"),
            Peer("same U-Net, 1 step", 1, "6.20 (Song et al. 2023, CD)"),
        ),
    ),
}  # fmt: skip


@dataclass
class Side:
    """One side of a contest at work: ``make`` does one batch and returns how many pieces."""

    batch: int
    form: str
    make: Callable[[], int]
    costs: list[Cost] = dataclasses.field(default_factory=list)

    def seconds_each(self) -> float:
        return statistics.median(cost.seconds_each for cost in self.costs)

    def cpu_seconds_each(self) -> float:
        return statistics.median(cost.cpu_s / cost.items for cost in self.costs)

    def joules_each(self, bound: str = "energy_mj") -> float | None:
        values = [v for cost in self.costs if (v := cost.joules_each(bound)) is not None]
        return statistics.median(values) if len(values) == len(self.costs) else None


def our_side(contest: Contest, device: str, precision: Precision, images: int | None) -> Side:
    model = random_model(**dataclasses.asdict(RELEASED[contest.model].config))
    sampler = Sampler(model, device=device, precision=precision)
    del model
    sampler.warm_up()
    # On a GPU copies overlap with the next tile, so that a call should have many.
    count = images or sampler.tile * sampler.threads * (16 if sampler.device.type == "cuda" else 1)
    class_ids = np.arange(count) % sampler.config.num_classes
    return Side(
        sampler.tile, f"un0-{sampler.engine_name}",
        lambda: len(sampler.generate(0, 0, class_ids)),
    )  # fmt: skip


def peer_side(
    contest: Contest, device: torch.device, precision: Precision, compiled: bool,
    batches: Sequence[int],
) -> Side:  # fmt: skip
    """The U-Net in the form and at the batch that were quickest when tried."""
    from diffusers import UNet2DModel
    from diffusers.utils import logging

    logging.set_verbosity_error()
    torch.manual_seed(0)
    net = UNet2DModel(**contest.unet).eval().requires_grad_(False).to(device, DTYPES[precision])
    found = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    assert abs(found - contest.million_params) < 0.1, f"{found} M parameters"
    tried: list[tuple[float, Side]] = []
    for layout in ("NCHW", "channels-last"):
        if layout == "channels-last":
            net = net.to(memory_format=torch.channels_last)
        forms: list[tuple[str, Any]] = [(layout, net)]
        if compiled and layout == "channels-last":
            forms.append((f"{layout}, compiled", torch.compile(net)))
        for form, call in forms:
            # NCHW is tried at one batch only: it lost by far wherever it was measured.
            for batch in batches[1:2] or batches if layout == "NCHW" else batches:
                side = _evaluation(call, form, batch, contest, device, DTYPES[precision])
                candidates = [side]
                if device.type == "cpu" and layout == "channels-last":
                    candidates.append(_thread_a_core(side, torch.get_num_threads()))
                for candidate in candidates:
                    candidate.make()
                    tried.append((_quickest(candidate, device), candidate))
    return min(tried, key=lambda pair: pair[0])[1]


def _evaluation(
    call: Any, form: str, batch: int, contest: Contest, device: torch.device, dtype: torch.dtype
) -> Side:
    size = contest.unet["sample_size"]
    layout = torch.contiguous_format if form == "NCHW" else torch.channels_last
    x = torch.randn(batch, 3, size, size).to(device, dtype, memory_format=layout)
    time = torch.tensor(10, device=device)
    classes = torch.arange(batch, device=device) if "num_class_embeds" in contest.unet else None

    def make() -> int:
        with torch.no_grad():
            call(x, time, class_labels=classes)
        return batch

    return Side(batch, form, make)


def _thread_a_core(side: Side, threads: int) -> Side:
    """The same with a batch to each core, as our tiles run: teams of threads wait for each other
    where cores are shared with other work."""
    before = torch.get_num_threads()

    def alone() -> None:
        torch.get_num_threads()  # a thread's first call takes over the default
        torch.set_num_threads(1)

    pool = ThreadPoolExecutor(threads, initializer=alone)
    list(pool.map(lambda _: side.make(), range(threads)))
    torch.set_num_threads(before)
    return Side(
        threads * side.batch, f"{side.form}, a batch a core",
        lambda: sum(pool.map(lambda _: side.make(), range(threads))),
    )  # fmt: skip


def _quickest(side: Side, device: torch.device, tries: int = 2) -> float:
    """Seconds an image of the quickest of a few evaluations."""
    best = float("inf")
    for _ in range(tries):
        begin_s = monotonic_s()
        side.make()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, (monotonic_s() - begin_s) / side.batch)
    return best


def measure(size: int, precision: Precision, options: argparse.Namespace) -> list[dict[str, Any]]:
    contest, device = CONTESTS[size], torch.device(options.device)
    batches = options.batches or contest.batches
    ours = our_side(contest, options.device, precision, options.images)
    theirs = peer_side(contest, device, precision, options.compile, batches)
    with Meter(device) as meter:
        for _ in range(options.rounds):
            for side in (ours, theirs):
                side.costs.append(meter.measure(side.make))
    released = RELEASED[contest.model]
    rows = [_row(size, released.config.n, precision, ours, ours.form, 1, ours)]
    rows[0] |= {"fid": f"{released.fid} ({released.fid_evaluator}, its publisher)"}
    for peer in contest.peers:
        row = _row(size, None, precision, theirs, peer.name, peer.evaluations, ours)
        rows.append(row | {"fid": peer.fid, "form": theirs.form})
    return rows


def _row(
    size: int, n: int | None, precision: str, side: Side, engine: str, times: int, ours: Side
) -> dict[str, Any]:
    """Figures of an image that takes ``times`` of the side's pieces of work."""
    seconds = side.seconds_each() * times
    low, joules, high = (side.joules_each(b) for b in ("low_mj", "energy_mj", "high_mj"))
    ours_j = ours.joules_each()
    ratio_j = None if joules is None or not ours_j else joules * times / ours_j
    energy = side.costs[0].energy
    return {
        "image_size": size,
        "n": n,
        "batch": side.batch,
        "engine": engine,
        "precision": precision,
        "images_per_s": 1 / seconds,
        "seconds_per_image": seconds,
        "energy_per_image_j": None if joules is None else joules * times,
        "energy_low_j": None if low is None else low * times,
        "energy_high_j": None if high is None else high * times,
        "energy_quality": energy.quality,
        "energy_method": energy.method,
        "evaluations": times,
        "extrapolated": times > 1,
        "seconds_ratio_to_un0": seconds / ours.seconds_each(),
        "cpu_seconds_per_image": side.cpu_seconds_each() * times,
        "cpu_seconds_ratio_to_un0": side.cpu_seconds_each() * times / ours.cpu_seconds_each(),
        "energy_ratio_to_un0": ratio_j,
    }


def show(rows: list[dict[str, Any]], device: str) -> None:
    print(f"device {device}, load average {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    print("Peers: one evaluation measured, multiplied. Evaluators of the FIDs differ: no ranking.")
    head = ("size", "precision", "generator", "batch", "s/image", "J/image (low to high)",
            "times our s", "our CPU s", "our J", "published FID")  # fmt: skip
    lines = [head, *(_line(row) for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
    print(f"energy: {rows[0]['energy_quality']}, {rows[0]['energy_method']}")
    if rows[0]["energy_quality"] == "estimated":
        print("An estimate knows how busy the machine was, with this and with other work. At the")
        print("same power joules are as seconds; CPU seconds are free of what others did.")


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    joules = "-" if row["energy_per_image_j"] is None else f"{row['energy_per_image_j']:.3g}"
    if row["energy_low_j"] is not None:
        joules += f" ({row['energy_low_j']:.3g} to {row['energy_high_j']:.3g})"
    name = row["engine"] + (f", n = {row['n']}" if row["n"] else f", {row['form']}")
    ratio_j = row["energy_ratio_to_un0"]
    return (
        str(row["image_size"]), row["precision"], name, str(row["batch"]),
        f"{row['seconds_per_image']:.4g}", joules, f"{row['seconds_ratio_to_un0']:,.3g}",
        f"{row['cpu_seconds_ratio_to_un0']:,.3g}",
        "-" if ratio_j is None else f"{ratio_j:,.3g}", row["fid"],
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs="+", choices=[32, 64], default=[32, 64])
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batches", type=int, nargs="+", help="the peer's, to pick the best of")
    parser.add_argument(
        "--images", type=int, help="ours in one call; default: a tile a thread, 16 on a GPU"
    )
    parser.add_argument("--compile", action="store_true", help="try torch.compile for the peer")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if importlib.util.find_spec("diffusers") is None:
        print(
            "skipped: the peers need diffusers; pip install 'un0-cluster[bench]'", file=sys.stderr
        )
        if options.json:
            print("[]")
        return
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = [
        row
        for size in options.size
        for precision in options.precision
        for row in measure(size, precision, options)
    ]
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        device = torch.device(options.device)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        show(rows, name)


if __name__ == "__main__":
    main()
