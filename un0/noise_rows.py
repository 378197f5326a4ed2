"""Initial phases of images that have seeds of their own (``un0.noise``, one key a row)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from un0.errors import InputError
from un0.noise import check_indices, phases_torch


@dataclass(frozen=True)
class RowNoise:
    """Image k has the noise of image ``indices[k]`` of the seed ``seeds[k]``. Both are (B,)."""

    seeds: NDArray[np.uint64]
    indices: NDArray[np.int64]

    def checked(self, rows: int) -> RowNoise:
        """The same, or InputError unless it is the noise of so many images."""
        if self.seeds.dtype != np.uint64:
            raise InputError(f"seeds have type {self.seeds.dtype}; give uint64")
        if not self.seeds.shape == self.indices.shape == (rows,):
            raise InputError(
                f"{len(self.seeds)} seeds and {len(self.indices)} indices for {rows} images; "
                "give one of each to an image"
            )
        return RowNoise(self.seeds, check_indices(self.indices))  # type: ignore[arg-type]

    def part(self, start: int, stop: int) -> RowNoise:
        return RowNoise(self.seeds[start:stop], self.indices[start:stop])

    def phases(self, width: int, device: torch.device | str = "cpu") -> Tensor:
        """Phases (B, width) float32, row k as ``initial_phases(seeds[k], [indices[k]], width)``."""
        if torch.device(device).type == "cpu":
            from un0.noise_cpu import fill_rows  # numba: imported at first use

            out = np.empty((len(self.indices), width), dtype=np.float32)
            fill_rows(self.seeds, self.indices, out)
            return torch.from_numpy(out)
        seeds = torch.from_numpy(self.seeds.view(np.int64)).to(device)[:, None]
        return phases_torch(seeds, torch.from_numpy(self.indices).to(device), width)
