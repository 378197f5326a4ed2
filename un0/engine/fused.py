"""The GPU engine's mathematics: a model prepared for one device, and images of phases.

Against the readable model: K is masked, scaled and rounded once; a step is one product on stacked
[sin; cos] and one pass over the phases; the conditioning block, which depends on nothing else, runs
first; oscillators are kept in pixel order, so that settled phases are the decoder's first map in
NHWC as they lie. Phases stay float32. All of it are functions of tensors on any device; graphs and
streams are in ``un0.engine.cuda``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from un0.config import ModelConfig
from un0.engine import torch_ops
from un0.engine.base import DTYPES, FP8_PRECISIONS, Precision
from un0.engine.fused_decoder import FP8, FP8_MAX, FP8_SWING, FusedDecoder
from un0.engine.library_decoder import LibraryDecoder
from un0.engine.torch_ops import PIXELS, pixel_order
from un0.model import Un0Model

# How the decoder is computed: by libraries' convolutions, or by kernels of our own.
Decoding = Literal["library", "fused"]
DECODINGS: tuple[str, ...] = get_args(Decoding)
SAMPLES = 16  # images that the scales of the fp8 decoder are found with


class Ops(Protocol):
    """The steps between products: ``torch_ops``, or ``triton_ops`` where there is Triton."""

    name: str
    initial_phases: Any
    conditioning_waves: Any
    encode: Any
    advance: Any
    read_out: Any
    bias_and_leak: Any
    convolve: Any
    colours: Any
    levels: Any


def fits(config: ModelConfig) -> bool:
    """Whether a model is of the released kind: Euler, sin and cos, whole channels of phases."""
    return config.solver == "euler" and config.encoding == "sin_cos" and config.n % PIXELS == 0


class FusedModel:
    """``model`` on ``device``; it may be dropped afterwards.

    precision: of products and convolutions. "fp8" rounds K to e4m3 with a scale of its own and
    keeps the drive and the decoder in bf16; "fp8-full" has the decoder in e4m3 too, and always
    fused. decoding: None takes what is faster, ``default_decoding``.
    """

    def __init__(
        self,
        model: Un0Model,
        device: torch.device,
        precision: Precision,
        ops: Ops = torch_ops,
        decoding: Decoding | None = None,
    ) -> None:
        c = self.config = model.config
        self.ops = ops
        fp8 = precision in FP8_PRECISIONS
        self.dtype = torch.bfloat16 if fp8 else DTYPES[precision]
        self.swing_dtype = FP8 if fp8 else self.dtype
        self.swing_scale = FP8_SWING if fp8 else 1.0

        def on_device(parameter: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
            return parameter.detach().to(device, dtype)

        # All rates carry the step length, so that they state a step's change.
        dt = c.integration_time / c.num_steps
        scale = c.coupling_scale * dt
        # Allocations of their own: cuBLAS wants some kinds of scales at multiples of 16 bytes.
        self.swing_unscale, self.K_unscale = (torch.ones((), device=device) for _ in range(2))
        if fp8:
            largest = torch.stack([b.abs().amax() for b in coupling_blocks(model.K, device)]).amax()
            largest = largest.clamp(min=1e-30)  # of a K that is all zero
            self.swing_unscale.fill_(1 / FP8_SWING)
            self.K_unscale.copy_(largest * scale / FP8_MAX)
            self.K_NN = _coupling(model.K, device, FP8, FP8_MAX / largest)
        else:
            self.K_NN = _coupling(model.K, device, self.dtype, scale)
        K_cond_MM = on_device(model.K_cond) * (c.conditioning_scale * dt)
        self.K_cond_MM = K_cond_MM.fill_diagonal_(0)
        drive_CNM = on_device(model.K_drive, self.dtype) * (c.conditioning_scale * dt)
        self.drive_CMN = torch.stack([pixel_order(d) for d in drive_CNM.unbind(2)], dim=1)
        self.omega_N = pixel_order(on_device(model.omega)[None] * dt)[0]
        self.omega_cond_M = on_device(model.omega_cond) * dt
        parameters = [on_device(p) for p in model.decoder.parameters()]
        self.map_dtype = FP8 if precision == "fp8-full" else self.dtype
        decoding = decoding or default_decoding(precision, ops)
        self.decoder: FusedDecoder | LibraryDecoder
        if decoding == "fused" or precision == "fp8-full":
            self.decoder = FusedDecoder(parameters, self.map_dtype, ops)
            if self.map_dtype == FP8:
                self.decoder.find_scales(self._features(self._sample(device)), torch_ops.convolve)
        else:
            self.decoder = LibraryDecoder(parameters, self.dtype, ops)

    @property
    def tensors(self) -> list[Tensor]:
        """All that stays on the device."""
        held = [self.K_NN, self.K_cond_MM, self.drive_CMN, self.omega_N, self.omega_cond_M]
        return [*held, self.swing_unscale, self.K_unscale, *self.decoder.tensors]

    def from_seed(self, seed: Tensor, indices_B: Tensor, class_ids_B: Tensor) -> Tensor:
        """Images uint8 (B, H, W, 3) of image indices int64 (B,). seed: int64, one element."""
        c = self.config
        theta_BN, phi_BM = self.ops.initial_phases(seed, indices_B, c.n, c.n_cond)
        return self._images(theta_BN, phi_BM, class_ids_B)

    def from_phases(self, initial_phases: Tensor, class_ids_B: Tensor) -> Tensor:
        """Images uint8 (B, H, W, 3) of phases (B, n + n_cond) in the model's order."""
        theta, phi = initial_phases.split([self.config.n, self.config.n_cond], dim=1)
        return self._images(pixel_order(theta), phi.contiguous(), class_ids_B)

    def _images(self, theta_BN: Tensor, phi_BM: Tensor, class_ids_B: Tensor) -> Tensor:
        return self.decode(self.integrate(theta_BN, phi_BM, class_ids_B))

    def integrate(self, theta_BN: Tensor, phi_BM: Tensor, class_ids_B: Tensor) -> Tensor:
        """Settled main phases (B, N), in pixel order as the initial ones are."""
        waves_SB2M = self.ops.conditioning_waves(
            phi_BM, self.omega_cond_M, self.K_cond_MM, self.config.num_steps
        )
        swings_B2N = self.ops.encode(theta_BN, self.swing_dtype, self.swing_scale)
        for wave_B2M in waves_SB2M:
            theta_BN, swings_B2N = self.ops.advance(
                theta_BN, self._pull(swings_B2N), self.omega_N, self.drive_CMN, class_ids_B,
                wave_B2M, self.swing_dtype, self.swing_scale,
            )  # fmt: skip
        return theta_BN

    def _pull(self, swings_B2N: Tensor) -> Tensor:
        """The product with K, (B, 2, N)."""
        rows = swings_B2N.flatten(0, 1)
        if self.swing_dtype != FP8:
            return F.linear(rows, self.K_NN).view_as(swings_B2N)
        product = torch._scaled_mm(
            rows,
            self.K_NN.T,
            self.swing_unscale,
            self.K_unscale,
            out_dtype=self.dtype,
            use_fast_accum=True,
        )
        return product.view_as(swings_B2N)

    def decode(self, theta_BN: Tensor) -> Tensor:
        """Images uint8 (B, H, W, 3) of settled phases."""
        return self.decoder(self._features(theta_BN))

    def _features(self, theta_BN: Tensor) -> Tensor:
        """The decoder's first map (B, 4, 4, C) in its own precision."""
        scale = FP8_SWING if self.map_dtype == FP8 else 1.0
        reference_B = self._reference(theta_BN)
        features: Tensor = self.ops.read_out(theta_BN, reference_B, self.map_dtype, scale)
        return features

    def _sample(self, device: torch.device) -> Tensor:
        """Settled phases of a few images of seed 0 whose classes are spread over all there are."""
        c, indices = self.config, torch.arange(SAMPLES, device=device)
        theta_BN, phi_BM = self.ops.initial_phases(indices[:1], indices, c.n, c.n_cond)
        return self.integrate(theta_BN, phi_BM, indices * c.num_classes // SAMPLES)

    def _reference(self, theta_BN: Tensor) -> Tensor:
        """What the phases are relative to, (B,). Oscillator 0 comes first in either order."""
        if self.config.relativization == "mean_relative":
            return theta_BN.mean(dim=1)
        if self.config.relativization == "ref_oscillator":
            return theta_BN[:, 0].contiguous()
        return theta_BN.new_zeros(len(theta_BN))


def default_decoding(precision: Precision, ops: Ops) -> Decoding:
    """Kernels of our own for what tensor cores multiply, where Triton runs them."""
    return "library" if precision == "fp32" or ops is torch_ops else "fused"


def coupling_blocks(K_NN: Tensor, device: torch.device) -> Iterator[Tensor]:
    """K's rows in pixel order, those of one pixel at a time (n / 16, n), float32 on the device,
    columns in pixel order, diagonal zero: never more than a sixteenth of K besides what is kept."""
    for pixel, rows in enumerate(K_NN.detach().unflatten(0, (-1, PIXELS)).unbind(1)):
        block = pixel_order(rows.to(device, torch.float32, copy=True))
        block.diagonal(offset=pixel * len(block)).zero_()
        yield block


def _coupling(
    K_NN: Tensor, device: torch.device, dtype: torch.dtype, scale: float | Tensor
) -> Tensor:
    out = torch.empty(K_NN.shape, dtype=dtype, device=device)
    for rows, block in zip(out.chunk(PIXELS), coupling_blocks(K_NN, device), strict=True):
        rows.copy_(block.mul_(scale))
    return out
