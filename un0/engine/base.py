"""What a fast path must look like to the sampler."""

from __future__ import annotations

from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Precision = Literal["fp32", "bf16", "fp16", "int8", "fp8", "fp8-full"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
FP8_PRECISIONS: tuple[Precision, ...] = ("fp8", "fp8-full")  # of K alone; of the decoder too

# What PyTorch calls them; what else int8 and fp8 leave in which type is up to the engine.
DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


class Engine(Protocol):
    """A prepared model on one device. Built once, called for tile after tile.

    Calls may come from several threads at once. The sampler always passes ``tile`` rows and pads
    the last ones: libraries pick kernels by shape, and one shape means one result. Unless
    ``any_rows``: an engine whose result for an image is the same among any others is passed what
    there is, at most ``tile`` rows for each thread that works on them.
    """

    name: str
    tile: int
    any_rows: bool

    def __call__(self, initial_phases: Tensor, class_ids: Tensor) -> Tensor:
        """Images uint8 (B, H, W, 3) of phases float32 (B, n + n_cond) and class ids int64 (B,),
        all on the engine's device. Inputs are trusted; the sampler has checked them."""
        ...


@runtime_checkable
class Renderer(Protocol):
    """An engine that also draws its own noise and brings the images to the host."""

    def render(self, seed: int, first: int, class_ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Images uint8 (B, H, W, 3) of image indices ``first`` .. ``first + B - 1``."""
        ...

    def forget(self) -> None:
        """Let go of all memory but the weights."""
        ...


class Job(Protocol):
    """One tile of images that several threads make together."""

    levels: NDArray[np.uint8]

    def work(self, member: int) -> None:
        """The part of one of the threads; it may wait for the others: all must come."""
        ...

    def abandon(self) -> None:
        """Nobody waits any longer; ``levels`` are worthless."""
        ...


@runtime_checkable
class Sharing(Protocol):
    """An engine whose tile several threads can compute together, up to ``most`` of them. That is
    sooner done than one tile for each of at most ``few`` images."""

    few: int
    most: int

    def share(self, initial_phases: Tensor, class_ids: Tensor, members: int) -> Job:
        """``Engine.__call__`` in so many parts."""
        ...


def to_uint8(images_BHWC: Tensor) -> Tensor:
    """Levels 0..255 of images in [-1, 1]: round((x + 1) / 2 * 255), ties to even."""
    return ((images_BHWC + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)


def exact_cuda() -> None:
    """Make cuBLAS and cuDNN keep fp32 what it says (no TF32), add up in fp32, and choose kernels
    without timing them, so that images repeat. It holds for the whole process: they know no
    narrower setting that threads could share safely."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
