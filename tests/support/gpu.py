"""What a test on a GPU needs of it."""

from __future__ import annotations

import pytest
import torch

from un0.engine import FP8_CAPABILITY, Precision
from un0.engine.base import FP8_PRECISIONS


def needs(precision: Precision) -> None:
    """Skip the test on a GPU that cannot multiply in this precision."""
    if precision in FP8_PRECISIONS and torch.cuda.get_device_capability() < FP8_CAPABILITY:
        pytest.skip(f"this GPU has capability {torch.cuda.get_device_capability()}: no fp8")
