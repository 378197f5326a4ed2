"""The roofline that shares are relative to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from un0 import work


def test_a_processor_that_emulates_bf16_is_measured_by_its_fp32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Emulated products of large matrices are slower than anything an engine does with them."""
    seconds = {torch.bfloat16: 10.0, torch.float32: 0.5}
    monkeypatch.setattr(work, "PEAK_SIDE", 16)
    monkeypatch.setattr(work, "has_packed_linear", lambda _: True)

    def timed(product: Callable[[], Tensor], _threads: int) -> float:
        return seconds[product().dtype]

    monkeypatch.setattr(work, "_best_of_threads", timed)
    cpu = torch.device("cpu")
    fp32 = work.gemm_peak_flops_per_s(cpu, "fp32", 2)
    assert fp32 == 2 * 2 * 16**3 / 0.5
    assert work.gemm_peak_flops_per_s(cpu, "bf16", 2) == fp32
    seconds[torch.bfloat16] = 0.1
    assert work.gemm_peak_flops_per_s(cpu, "bf16", 2) == pytest.approx(5 * fp32)
    monkeypatch.setattr(work, "has_packed_linear", lambda _: False)  # it would take minutes
    assert work.gemm_peak_flops_per_s(cpu, "bf16", 2) == fp32
