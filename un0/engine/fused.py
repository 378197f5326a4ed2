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
from un0.engine.fused_decoder import FusedDecoder
from un0.engine.library_decoder import LibraryDecoder
from un0.engine.precisions import FP8, Numbers, coupling_numbers, decoder_numbers
from un0.engine.torch_ops import PIXELS, pixel_order
from un0.model import Un0Model

# How the decoder is computed: by libraries' convolutions, or by kernels of our own.
Decoding = Literal["library", "fused"]
DECODINGS: tuple[str, ...] = get_args(Decoding)
SAMPLES = 16  # images that the scales of maps are found with


class Ops(Protocol):
    """The steps between products: ``torch_ops``, or ``triton_ops`` where there is Triton."""

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
    fused. decoding: None takes what is faster, ``default_decoding``. With "fused", fp32 is two
    halves (``un0.engine.precisions``), of K too; with "library" it is libraries' fp32.
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
        self.dtype = torch.bfloat16 if precision in FP8_PRECISIONS else DTYPES[precision]
        fused = precision == "fp8-full" or (decoding or default_decoding(ops, device)) == "fused"
        plain = Numbers(self.dtype, channels=1)
        self.coupling = coupling_numbers(precision)
        if self.coupling.split and not fused:
            self.coupling = plain

        def on_device(parameter: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
            return parameter.detach().to(device, dtype)

        # All rates carry the step length, so that they state a step's change.
        dt = c.integration_time / c.num_steps
        scale = c.coupling_scale * dt
        self.pull_unit = 1.0
        # Allocations of their own: cuBLAS wants some kinds of scales at multiples of 16 bytes.
        self.swing_unscale, self.K_unscale = (torch.ones((), device=device) for _ in range(2))
        if self.coupling.largest is None:
            self.K_NN = _coupling(model.K, device, self.coupling, scale)
        else:
            largest = torch.stack([b.abs().amax() for b in coupling_blocks(model.K, device)]).amax()
            largest = largest.clamp(min=1e-30)  # of a K that is all zero
            self.K_NN = _coupling(model.K, device, self.coupling, self.coupling.largest / largest)
            unit = largest * scale / self.coupling.largest
            if self.coupling.split:
                self.pull_unit = unit.item() if device.type != "meta" else 1.0
            else:
                self.swing_unscale.fill_(1 / self.coupling.swing)
                self.K_unscale.copy_(unit)
        K_cond_MM = on_device(model.K_cond) * (c.conditioning_scale * dt)
        self.K_cond_MM = K_cond_MM.fill_diagonal_(0)
        drive_CNM = on_device(model.K_drive, self.dtype) * (c.conditioning_scale * dt)
        self.drive_CMN = torch.stack([pixel_order(d) for d in drive_CNM.unbind(2)], dim=1)
        self.omega_N = pixel_order(on_device(model.omega)[None] * dt)[0]
        self.omega_cond_M = on_device(model.omega_cond) * dt
        parameters = [on_device(p) for p in model.decoder.parameters()]
        self.decoder: FusedDecoder | LibraryDecoder
        if fused:
            self.features = decoder_numbers(precision)
            self.decoder = FusedDecoder(parameters, self.features, ops)
            if self.features.usual_max is not None:
                self.decoder.find_scales(self._features(self._sample(device)))
        else:
            self.features = plain
            self.decoder = LibraryDecoder(parameters, self.dtype, ops)

    @property
    def tensors(self) -> list[Tensor]:
        """All that stays on the device."""
        held = [self.K_NN, self.K_cond_MM, self.drive_CMN, self.omega_N, self.omega_cond_M]
        return [*held, self.swing_unscale, self.K_unscale, *self.decoder.tensors]

    def from_seed(self, seed: Tensor, indices_B: Tensor, class_ids_B: Tensor) -> Tensor:
        """Images uint8 (B, H, W, 3) of image indices int64 (B,). seed: int64, one element."""
        return self.decode(self.settle(seed, indices_B, class_ids_B))

    def settle(self, seed: Tensor, indices_B: Tensor, class_ids_B: Tensor) -> Tensor:
        """Their settled phases (B, N), in pixel order."""
        c = self.config
        theta_BN, phi_BM = self.ops.initial_phases(seed, indices_B, c.n, c.n_cond)
        return self.integrate(theta_BN, phi_BM, class_ids_B)

    def from_phases(self, initial_phases: Tensor, class_ids_B: Tensor) -> Tensor:
        """Images uint8 (B, H, W, 3) of phases (B, n + n_cond) in the model's order."""
        theta, phi = initial_phases.split([self.config.n, self.config.n_cond], dim=1)
        return self.decode(self.integrate(pixel_order(theta), phi.contiguous(), class_ids_B))

    def integrate(self, theta_BN: Tensor, phi_BM: Tensor, class_ids_B: Tensor) -> Tensor:
        """Settled main phases (B, N), in pixel order as the initial ones are."""
        waves_SB2M = self.ops.conditioning_waves(
            phi_BM, self.omega_cond_M, self.K_cond_MM, self.config.num_steps
        )
        swings = self.ops.encode(theta_BN, self.coupling)
        for wave_B2M in waves_SB2M:
            theta_BN, swings = self.ops.advance(
                theta_BN, self._pull(swings), self.pull_unit, self.omega_N, self.drive_CMN,
                class_ids_B, wave_B2M, self.coupling,
            )  # fmt: skip
        return theta_BN

    def _pull(self, swings: Tensor) -> Tensor:
        """The product with K, (B, 2, N)."""
        rows, K = swings.flatten(0, 1), self.K_NN
        if self.coupling.dtype == FP8:
            product = torch._scaled_mm(
                rows, K.T, self.swing_unscale, self.K_unscale, out_dtype=self.dtype,
                use_fast_accum=True,
            )  # fmt: skip
        elif self.coupling.split and rows.device.type == "cuda":
            product = torch.mm(rows, K.T, out_dtype=torch.float32)
        elif self.coupling.split:
            product = F.linear(rows.float(), K.float())
        else:
            product = F.linear(rows, K)
        pull: Tensor = product.unflatten(0, (-1, 2))
        return pull

    def decode(self, theta_BN: Tensor) -> Tensor:
        """Images uint8 (B, H, W, 3) of settled phases."""
        return self.decoder(self._features(theta_BN))

    def _features(self, theta_BN: Tensor) -> Tensor:
        """The decoder's first map (B, 4, 4, width)."""
        features: Tensor = self.ops.read_out(theta_BN, self._reference(theta_BN), self.features)
        return features

    def _sample(self, device: torch.device) -> Tensor:
        """Settled phases of a few images of seed 0 whose classes are spread over all there are."""
        indices = torch.arange(SAMPLES, device=device)
        return self.settle(indices[:1], indices, indices * self.config.num_classes // SAMPLES)

    def _reference(self, theta_BN: Tensor) -> Tensor:
        """What the phases are relative to, (B,). Oscillator 0 comes first in either order."""
        if self.config.relativization == "mean_relative":
            return theta_BN.mean(dim=1)
        if self.config.relativization == "ref_oscillator":
            return theta_BN[:, 0].contiguous()
        return theta_BN.new_zeros(len(theta_BN))


def default_decoding(ops: Ops, device: torch.device) -> Decoding:
    """Kernels of our own where Triton runs, and for NVIDIA's tensor cores from Ampere on: what it
    makes for others multiplies without them."""
    if ops is torch_ops:
        return "library"
    if device.type != "cuda":
        return "fused"
    known = torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)
    return "fused" if known else "library"


def coupling_blocks(K_NN: Tensor, device: torch.device) -> Iterator[Tensor]:
    """K's rows in pixel order, those of one pixel at a time (n / 16, n), float32 on the device,
    columns in pixel order, diagonal zero: never more than a sixteenth of K besides what is kept."""
    for pixel, rows in enumerate(K_NN.detach().unflatten(0, (-1, PIXELS)).unbind(1)):
        block = pixel_order(rows.to(device, torch.float32, copy=True))
        block.diagonal(offset=pixel * len(block)).zero_()
        yield block


def _coupling(
    K_NN: Tensor, device: torch.device, numbers: Numbers, scale: float | Tensor
) -> Tensor:
    """K (N, N) or, split, (N, 3 N)."""
    n = len(K_NN)
    out = torch.empty(n, n * (3 if numbers.split else 1), dtype=numbers.dtype, device=device)
    for rows, block in zip(out.chunk(PIXELS), coupling_blocks(K_NN, device), strict=True):
        rows.copy_(numbers.keep_weight(block.mul_(scale)))
    return out
