"""The prepared engine: the readable model's mathematics with the constant work done at load.

K is masked, scaled and packed once; each step is one product on stacked [sin; cos]; the
conditioning block, which depends on nothing else, is integrated first; a class's drive is
gathered once. Phases stay float32; products and convolutions use the engine's precision.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from un0.config import SEED_SIZE, Solver
from un0.decoder import read_out
from un0.engine.base import DTYPES, Precision, exact_cuda, to_uint8
from un0.engine.gemm import prepare_gemm
from un0.model import Un0Model

# Images decoded at a time on a CPU, so that their activations stay in its cache: measured.
CPU_DECODE_ROWS = 16


class EagerEngine:
    """Runs anywhere PyTorch runs. Shapes: B images, N main and M conditioning oscillators."""

    name = "eager"
    any_rows = False

    def __init__(
        self, model: Un0Model, device: torch.device, precision: Precision, tile: int
    ) -> None:
        if device.type == "cuda":
            exact_cuda()
        c = self.config = model.config
        self.tile = tile
        self.dtype = dtype = DTYPES[precision]
        # All rates carry the step length, so that they state a step's change.
        dt = c.integration_time / c.num_steps
        K_NN = _prepared(model.K, device).fill_diagonal_(0).mul_(c.coupling_scale * dt)
        self.gemm = prepare_gemm(K_NN.to(dtype), rows=2 * tile)
        K_cond_MM = _prepared(model.K_cond, device).fill_diagonal_(0)
        self.K_cond_T_MM = K_cond_MM.mul_(c.conditioning_scale * dt).T.contiguous()
        drive_CNM = _prepared(model.K_drive, device).mul_(c.conditioning_scale * dt)
        self.drive_CMN = drive_CNM.to(dtype).transpose(1, 2).contiguous()
        self.omega_N = _prepared(model.omega, device).mul_(dt)
        self.omega_cond_M = _prepared(model.omega_cond, device).mul_(dt)
        tensors = [
            _prepared(parameter, device).to(dtype) for parameter in model.decoder.parameters()
        ]
        weights = [w.contiguous(memory_format=torch.channels_last) for w in tensors[::2]]
        # (weight, bias) of every convolution in order: two a block, then the output's.
        self.convs = list(zip(weights, tensors[1::2], strict=True))
        self.decode_rows = CPU_DECODE_ROWS if device.type == "cpu" else tile

    @torch.inference_mode()
    def __call__(self, initial_phases: Tensor, class_ids: Tensor) -> Tensor:
        """Images uint8 (B, H, W, 3)."""
        theta_BN = self.integrate(initial_phases, class_ids)
        return torch.cat([to_uint8(self.decode(rows)) for rows in theta_BN.split(self.decode_rows)])

    @torch.inference_mode()
    def integrate(self, initial_phases: Tensor, class_ids: Tensor) -> Tensor:
        """Final main phases (B, N), float32."""
        c = self.config
        theta, phi = torch.split(initial_phases, [c.n, c.n_cond], dim=1)
        waves: list[Tensor] = []  # [sin phi, cos phi] (B, 2, M) at each stage of each step
        for _ in range(c.num_steps):
            phi = _step(lambda phi: self._conditioning_change(phi, waves), phi, c.solver)
        stage_waves = iter(waves)
        drive_BMN = self.drive_CMN[class_ids]
        for _ in range(c.num_steps):
            theta = _step(lambda x: self._change(x, next(stage_waves), drive_BMN), theta, c.solver)
        return theta

    @torch.inference_mode()
    def decode(self, theta_BN: Tensor) -> Tensor:
        """Images (B, H, W, 3) in [-1, 1], float32, of final main phases (B, N)."""
        features = read_out(theta_BN, self.config.relativization, self.config.encoding)
        x = features.to(self.dtype).unflatten(1, (-1, SEED_SIZE, SEED_SIZE))
        x = x.contiguous(memory_format=torch.channels_last)
        *blocks, out = self.convs
        for index, (weight, bias) in enumerate(blocks):
            if index % 2 == 0:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.leaky_relu_(F.conv2d(x, weight, bias, padding=1), 0.2)
        return torch.tanh(F.conv2d(x, *out, padding=1).float()).permute(0, 2, 3, 1)

    def _change(self, theta_BN: Tensor, wave_B2M: Tensor, drive_BMN: Tensor) -> Tensor:
        """The step length times the velocity of the main phases, (B, N) float32."""
        sin_cos = theta_BN.new_empty(theta_BN.shape[0], 2, theta_BN.shape[1])
        sin, cos = sin_cos.unbind(1)
        torch.sin(theta_BN, out=sin)
        torch.cos(theta_BN, out=cos)
        drive_B2N = wave_B2M @ drive_BMN
        pull = self.gemm(sin_cos.to(self.dtype).flatten(0, 1), drive_B2N.flatten(0, 1)).float()
        pull_sin, pull_cos = pull.view_as(sin_cos).unbind(1)
        return torch.addcmul(self.omega_N, cos, pull_sin).addcmul_(sin, pull_cos, value=-1)

    def _conditioning_change(self, phi_BM: Tensor, waves: list[Tensor]) -> Tensor:
        """The same of the conditioning phases, (B, M); notes the wave they drive with."""
        wave = torch.stack([torch.sin(phi_BM), torch.cos(phi_BM)], dim=1)
        waves.append(wave.to(self.dtype))
        sin, cos = wave.unbind(1)
        pull_sin, pull_cos = (wave @ self.K_cond_T_MM).unbind(1)
        return self.omega_cond_M + cos * pull_sin - sin * pull_cos


def _step(change: Callable[[Tensor], Tensor], x: Tensor, solver: Solver) -> Tensor:
    """One step of ``un0.integrate``; ``change`` is asked once a stage, in order."""
    k1 = change(x)
    if solver == "euler":
        return x + k1
    k2 = change(x + k1 / 3)
    k3 = change(x + k2 - k1 / 3)
    k4 = change(x + k1 - k2 + k3)
    return x + (k1 + 3 * (k2 + k3) + k4) / 8


def _prepared(parameter: Tensor, device: torch.device) -> Tensor:
    """A float32 copy on the device: the engine changes and outlives its model."""
    return parameter.detach().to(device, torch.float32, copy=True)
