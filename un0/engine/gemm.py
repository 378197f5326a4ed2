"""The one product that dominates the dynamics: ``x @ K.T + addend`` with a constant K."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Gemm = Callable[[Tensor, Tensor], Tensor]


def prepare_gemm(K_NN: Tensor, rows: int) -> Gemm:
    """A function (x (rows, N), addend (rows, N)) -> x @ K.T + addend in K's dtype.

    On CPUs K is packed once for oneDNN's linear kernel where PyTorch has it: on AMD processors
    MKL's sgemm runs at well under half of its speed. ``rows`` is a hint for the packing.
    """
    if K_NN.device.type == "cpu" and has_packed_linear(K_NN.dtype):
        packed = torch.ops.mkldnn._reorder_linear_weight(K_NN, rows)
        linear_add = torch.ops.mkldnn._linear_pointwise.binary

        def gemm(x: Tensor, addend: Tensor) -> Tensor:
            out: Tensor = linear_add(x, addend, packed, None, "add")
            return out

        return gemm
    K_T = K_NN.T.contiguous()
    return lambda x, addend: torch.addmm(addend, x, K_T)


def has_packed_linear(dtype: torch.dtype) -> bool:
    """Whether oneDNN has the product in that type. In bf16 only where the processor has some of its
    instructions: elsewhere PyTorch's own takes a minute for a large one.

    These operators serve torch.compile and are not promised: look before use.
    """
    names = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    return (
        torch.backends.mkldnn.is_available()
        and all(hasattr(torch.ops.mkldnn, name) for name in names)
        and (dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )
