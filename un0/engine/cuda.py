"""The GPU engine: ``un0.engine.fused`` recorded once a tile size as a CUDA graph, and its copies.

A tile goes in as one small request (seed, first index, class ids) and comes out as levels: noise,
integration, decoding and rounding are one launch. All tiles run on one stream, in turn, so that
there is one set of activations; while a tile is copied to pinned memory on a second stream, the
next one runs. Where recording fails, the same operations are launched one by one; where there is
no Triton, they are PyTorch's.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass, field
from queue import SimpleQueue

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from un0.engine.base import Precision, exact_cuda
from un0.engine.fused import Decoding, FusedModel, Ops
from un0.engine.precisions import Numbers
from un0.model import Un0Model
from un0.paths import keep_elsewhere

logger = logging.getLogger(__name__)

SLOTS = 2  # tiles whose images may be on their way to the host at once
HEAD = 2  # a request's words before its class ids: seed, first image index
# One recording in a process at a time: waiting for a device, in any thread, breaks one there.
_recording = threading.Lock()


class CudaEngine:
    """Shapes: B images. Calls may come from several threads; the device sees one tile at a time.

    graphs: False launches every operation by itself, for comparison.
    """

    name = "cuda"
    any_rows = False

    def __init__(
        self,
        model: Un0Model,
        device: torch.device,
        precision: Precision,
        tile: int,
        *,
        decoding: Decoding | None = None,
        graphs: bool = True,
    ) -> None:
        exact_cuda()
        self.tile = tile
        self._device = device
        self._graphs = graphs
        with torch.cuda.device(device):  # for Triton's launches
            self._fused = FusedModel(model, device, precision, best_ops(device), decoding)
        self._side = model.config.image_size
        self._stream, self._copies = torch.cuda.Stream(device), torch.cuda.Stream(device)
        self._stream.wait_stream(torch.cuda.current_stream(device))  # the weights are there
        self._lock = threading.Lock()
        self._runs: dict[int, _Run] = {}

    def __call__(self, initial_phases: Tensor, class_ids: Tensor) -> Tensor:
        """Images uint8 (B, H, W, 3) of given phases, without a graph."""
        with torch.inference_mode(), torch.cuda.device(self._device):  # for Triton's launches
            return self._fused.from_phases(initial_phases, class_ids)

    def render(self, seed: int, first: int, class_ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Images uint8 (B, H, W, 3) of image indices ``first`` .. of these classes, on the host.

        Raises torch.cuda.OutOfMemoryError when so many do not fit; fewer may, after ``forget``.
        """
        with torch.inference_mode(), self._lock:
            run = self._run(len(class_ids))
        slot = run.slots.get()
        try:
            slot.request_host.numpy()[:] = request_words(seed, first, class_ids)
            with torch.inference_mode():
                with self._lock, torch.cuda.stream(self._stream):
                    run.request.copy_(slot.request_host, non_blocking=True)
                    slot.images.copy_(run.images())
                    slot.made.record(self._stream)
                with torch.cuda.stream(self._copies):
                    self._copies.wait_event(slot.made)
                    slot.images_host.copy_(slot.images, non_blocking=True)
                    slot.copied.record(self._copies)
            slot.copied.synchronize()
            return slot.images_host.numpy().copy()
        finally:
            run.slots.put(slot)

    def forget(self) -> None:
        """Let go of all recorded graphs and their memory."""
        with self._lock, _recording:
            torch.cuda.synchronize(self._device)
            self._runs.clear()
            torch.cuda.empty_cache()

    def _run(self, rows: int) -> _Run:
        if rows not in self._runs:
            with torch.cuda.device(self._device):
                self._runs[rows] = self._prepare(rows)
        return self._runs[rows]

    def _prepare(self, rows: int) -> _Run:
        run = _Run(self._fused, torch.zeros(HEAD + rows, dtype=torch.long, device=self._device))
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            run.compute()  # kernels are compiled and libraries set up outside of the recording
        self._stream.synchronize()
        if self._graphs:
            with _recording:
                run.record(self._stream)
        for _ in range(SLOTS):
            run.slots.put(_Slot.allocate(rows, self._side, self._device))
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        return run


@dataclass
class _Slot:
    """Where one tile's request and images lie on either side while they are on their way."""

    request_host: Tensor
    images: Tensor
    images_host: Tensor
    made: torch.cuda.Event
    copied: torch.cuda.Event

    @staticmethod
    def allocate(rows: int, side: int, device: torch.device) -> _Slot:
        shape = (rows, side, side, 3)
        return _Slot(
            torch.zeros(HEAD + rows, dtype=torch.long, pin_memory=True),
            torch.empty(shape, dtype=torch.uint8, device=device),
            torch.empty(shape, dtype=torch.uint8, pin_memory=True),
            torch.cuda.Event(),
            torch.cuda.Event(blocking=True),  # waiting threads sleep, they do not spin
        )


@dataclass
class _Run:
    """One tile size: its request on the device, and its graph once recorded."""

    model: FusedModel
    request: Tensor
    slots: SimpleQueue[_Slot] = field(default_factory=SimpleQueue)
    graph: torch.cuda.CUDAGraph | None = None
    recorded: Tensor | None = None

    def compute(self) -> Tensor:
        return images_of(self.model, self.request)

    def record(self, stream: torch.cuda.Stream) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self.recorded = self.compute()
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            logger.warning("no CUDA graph, operations are launched one by one: %s", error)
            return
        self.graph = graph

    def images(self) -> Tensor:
        """Images of the request as it stands, to be read on the same stream before the next."""
        if self.graph is None or self.recorded is None:
            return self.compute()
        self.graph.replay()
        return self.recorded


def request_words(seed: int, first: int, class_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """A request (2 + B,): the seed's 64 bits, the first index, the class ids."""
    head = np.array([seed, first], dtype=np.uint64).view(np.int64)
    return np.concatenate([head, class_ids])


def images_of(model: FusedModel, request: Tensor) -> Tensor:
    """Images uint8 (B, H, W, 3) of a request on the device. Indices past the last one there is
    wrap around; they are of rows nobody asked for."""
    rows = len(request) - HEAD
    indices_B = request[1] + torch.arange(rows, device=request.device)
    return model.from_seed(request[:1], indices_B, request[HEAD:])


def best_ops(device: torch.device) -> Ops:
    """Triton's kernels where they run, else PyTorch's operations."""
    if "TRITON_HOME" not in os.environ:
        keep_elsewhere("TRITON_CACHE_DIR", ".triton/cache")
    try:
        from un0.engine import triton_ops

        # A first launch builds Triton's launcher, which takes a C compiler.
        triton_ops.encode(torch.zeros(1, 16, device=device), Numbers(torch.float32))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # no package, no compiler, or whatever else it lacks
        from un0.engine import torch_ops

        logger.warning("Triton does not run, small steps are PyTorch's operations: %s", error)
        return torch_ops
    return triton_ops
