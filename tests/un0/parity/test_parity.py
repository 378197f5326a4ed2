"""The released mathematics, held to images the public reference computed in float64.

Each fixture is a small checkpoint in the released layout with learned, non-zero diagonals.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from un0 import Un0Model, load_model
from un0.engine import Precision, build_engine
from un0.engine.cpu import CpuEngine, fits
from un0.engine.eager import EagerEngine

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = sorted(path.stem for path in FIXTURES.glob("*.pt"))
LEVELS = 127.5  # 8-bit levels per unit of an image in [-1, 1]

# Bars of the reduced precisions, in levels (mean, max) over the worst fixture.
REDUCED: dict[tuple[str, Precision], tuple[float, float]] = {
    ("eager", "bf16"): (1.0, 24.0),
    ("cpu", "bf16"): (1.0, 24.0),
    ("cpu", "int8"): (1.0, 24.0),
}


class Reference:
    def __init__(self, name: str) -> None:
        arrays = np.load(FIXTURES / f"{name}.npz")
        self.path = FIXTURES / f"{name}.pt"
        self.initial = torch.from_numpy(arrays["initial_phases"])
        self.class_ids = torch.from_numpy(arrays["class_ids"])
        self.final: NDArray[np.float64] = arrays["final_phases"]
        self.images: NDArray[np.float64] = arrays["images"]

    def model(self, dtype: torch.dtype) -> Un0Model:
        return load_model(self.path, dtype)

    def engine(self, name: str, precision: Precision) -> EagerEngine | CpuEngine:
        if name == "cpu" and not fits(precision):
            pytest.skip(f"this processor lacks what {precision} needs")
        engine = build_engine(self.model(torch.float32), "cpu", precision, tile=8, name=name)
        assert isinstance(engine, EagerEngine | CpuEngine)
        return engine

    @property
    def levels(self) -> NDArray[np.int64]:
        """The reference's 8-bit images, (B, H, W, 3)."""
        return np.rint((self.images + 1) * LEVELS).astype(int).transpose(0, 2, 3, 1)


@pytest.fixture(params=NAMES)
def reference(request: pytest.FixtureRequest) -> Reference:
    return Reference(request.param)


def test_there_are_fixtures_of_both_families_and_both_solvers() -> None:
    configs = [Reference(name).model(torch.float32).config for name in NAMES]
    assert {config.image_size for config in configs} == {32, 64}
    assert {config.solver for config in configs} == {"euler", "rk4"}
    assert {config.parameterization for config in configs} == {"standard", "mup"}


def test_float64_matches_the_reference_to_rounding(reference: Reference) -> None:
    model = reference.model(torch.float64)
    final = model.integrate(reference.initial.double(), reference.class_ids)
    assert np.abs(final.numpy() - reference.final).max() < 1e-9
    assert np.abs(model.decode(final).numpy() - reference.images).max() < 1e-9


def test_float32_matches_the_reference(reference: Reference) -> None:
    images = reference.model(torch.float32)(reference.initial, reference.class_ids)
    assert np.abs(images.numpy() - reference.images).max() < 2e-5


@pytest.mark.parametrize("name", ["eager", "cpu"])
def test_the_engine_matches_the_reference(reference: Reference, name: str) -> None:
    engine = reference.engine(name, "fp32")
    if name == "eager":
        images = engine.decode(engine.integrate(reference.initial, reference.class_ids)).numpy()
    else:
        job = engine.share(reference.initial, reference.class_ids, 1)
        job.work(0)
        images = job.images
    assert np.abs(images - reference.images.transpose(0, 2, 3, 1)).max() < 2e-5

    off = np.abs(engine(reference.initial, reference.class_ids).numpy() - reference.levels)
    assert off.max() <= 1
    assert (off == 0).mean() > 0.995


@pytest.mark.parametrize(("name", "precision"), REDUCED)
def test_reduced_precision_stays_within_its_stated_levels(
    reference: Reference, name: str, precision: Precision
) -> None:
    engine = reference.engine(name, precision)
    off = np.abs(engine(reference.initial, reference.class_ids).numpy() - reference.levels)
    mean, most = REDUCED[name, precision]
    print(name, precision, off.mean(), off.max())
    assert off.mean() < mean
    assert off.max() < most
