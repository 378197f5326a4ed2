"""Tests on a real GPU: ``pytest -m gpu tests/gpu``. Without one they skip and say so."""

from __future__ import annotations

import os

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/gpu" in item.path.as_posix():
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="PyTorch sees no GPU"))
            elif "TRITON_INTERPRET" in os.environ:
                item.add_marker(pytest.mark.skip(reason="Triton interprets: pytest -m gpu"))
