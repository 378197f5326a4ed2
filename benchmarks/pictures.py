"""Images that benchmarks of encoders and files share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]


def bundled(count: int) -> Images:
    """Of the bundled model, (count, 32, 32, 3), all classes in turn."""
    from un0 import DEFAULT_MODEL, Sampler, load_model

    sampler = Sampler(load_model(DEFAULT_MODEL), device="cpu")
    return sampler.generate(0, 0, np.arange(count) % sampler.config.num_classes)


def natural(count: int, side: int) -> Images:
    """(count, side, side, 3) whose amplitude falls with frequency, as in photographs, with a little
    noise: they compress badly."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij"))
    amplitude = 1 / np.maximum(frequency, 1 / side)
    phase = rng.uniform(0, 2 * np.pi, (count, 3, *amplitude.shape))
    waves = np.fft.irfft2(amplitude * np.exp(1j * phase), s=(side, side))
    waves = waves / waves.std() * 50 + 128 + rng.normal(0, 2, waves.shape)
    return np.clip(waves, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1).copy()
