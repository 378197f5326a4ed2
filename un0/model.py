"""Un0Model: couplings, dynamics and decoder in one module. Readable; the oracle of the engines."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from un0.config import ModelConfig
from un0.decoder import Decoder, read_out
from un0.dynamics import Couplings, phase_velocity, without_diagonal
from un0.errors import InputError
from un0.integrate import integrate


class Un0Model(nn.Module):
    """A class-conditional Kuramoto image generator.

    Parameters as stored (learned diagonals included): ``omega (n,)``, ``K (n, n)``,
    ``omega_cond (n_cond,)``, ``K_cond (n_cond, n_cond)``, ``K_drive (num_classes, n, n_cond)``.
    ``labels``: class names by class id, or empty when the checkpoint names none.
    ``file_rev``: revision of the files it was loaded from; None for a model made in memory.
    ``metadata``: what those say of it besides (licence, data, scores ...).
    ``notes``: what a user should know of how they were read, a sentence each.
    """

    def __init__(self, config: ModelConfig, labels: tuple[str, ...] = ()) -> None:
        super().__init__()
        n, m = config.n, config.n_cond
        self.config = config
        self.labels = labels
        self.file_rev: str | None = None
        self.metadata: dict[str, Any] = {}
        self.notes: tuple[str, ...] = ()
        self.omega = nn.Parameter(torch.zeros(n))
        self.K = nn.Parameter(torch.zeros(n, n))
        self.omega_cond = nn.Parameter(torch.zeros(m))
        self.K_cond = nn.Parameter(torch.zeros(m, m))
        self.K_drive = nn.Parameter(torch.zeros(config.num_classes, n, m))
        self.decoder = Decoder(config)

    @property
    def rev(self) -> str:
        """The model's revision, 64 hex digits: of its file, else of its config and weights."""
        if self.file_rev is not None:
            return self.file_rev
        digest = hashlib.sha256(repr(self.config).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def couplings(self, class_ids_B: Tensor, dropped_B: Tensor | None = None) -> Couplings:
        """The flow's constants for these classes; a dropped image gets no drive (training)."""
        c = self.config
        drive_BNM = self.K_drive[class_ids_B] * c.conditioning_scale
        if dropped_B is not None:
            drive_BNM = drive_BNM * ~dropped_B[:, None, None]
        return Couplings(
            omega_N=self.omega,
            K_NN=without_diagonal(self.K) * c.coupling_scale,
            omega_cond_M=self.omega_cond,
            K_cond_MM=without_diagonal(self.K_cond) * c.conditioning_scale,
            drive_BNM=drive_BNM,
        )

    def integrate(
        self, initial_phases: Tensor, class_ids: Tensor, dropped: Tensor | None = None
    ) -> Tensor:
        """Final phases (B, n + n_cond) from initial phases (B, n + n_cond), in radians.

        Raises InputError on a class id out of range or phases of another shape.
        """
        c = self.config
        check_inputs(c, initial_phases, class_ids)
        couplings = self.couplings(class_ids, dropped)
        theta, phi = torch.split(initial_phases, [c.n, c.n_cond], dim=1)
        theta, phi = integrate(
            lambda theta, phi: phase_velocity(theta, phi, couplings),
            (theta, phi),
            c.num_steps,
            c.integration_time / c.num_steps,
            c.solver,
        )
        return torch.cat([theta, phi], dim=1)

    def decode(self, final_phases: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] of final phases (B, n + n_cond)."""
        c = self.config
        features = read_out(final_phases[:, : c.n], c.relativization, c.encoding)
        images: Tensor = self.decoder(features)
        return images

    def forward(
        self, initial_phases: Tensor, class_ids: Tensor, dropped: Tensor | None = None
    ) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1]."""
        return self.decode(self.integrate(initial_phases, class_ids, dropped))


def check_inputs(config: ModelConfig, initial_phases: Tensor, class_ids: Tensor) -> None:
    """Raise InputError unless shapes and class ids fit the model."""
    width = config.n + config.n_cond
    if initial_phases.dim() != 2 or initial_phases.shape[1] != width:
        raise InputError(
            f"initial phases have shape {tuple(initial_phases.shape)}; "
            f"this model needs (B, {width})"
        )
    if class_ids.shape != initial_phases.shape[:1]:
        raise InputError(
            f"class ids have shape {tuple(class_ids.shape)}; "
            f"{initial_phases.shape[0]} images need ({initial_phases.shape[0]},)"
        )
    if class_ids.numel():
        low, high = int(class_ids.min()), int(class_ids.max())
        if low < 0 or high >= config.num_classes:
            bad = low if low < 0 else high
            raise InputError(
                f"class id {bad} is out of range; this model has classes 0 to "
                f"{config.num_classes - 1}"
            )
