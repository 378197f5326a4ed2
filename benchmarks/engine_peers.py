"""Peers of our engines: the same mathematics as every reader would write it, and in other runtimes.

``Plain`` is the paper read aloud: K masked and scaled at every step, an ODE function and a loop,
the drive gathered and multiplied with einsum, Upsample and Conv2d. ONNX Runtime and OpenVINO get
the graph in its best form: K masked once, and one product a step on stacked [sin; cos].
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from un0 import Un0Model
from un0.engine.base import to_uint8
from un0.noise import initial_phases

Images = NDArray[np.uint8]
Make = Callable[[], Images]
CALIBRATION_BATCHES = 2


def readable_levels(model: Un0Model, phases: Tensor, class_ids: Tensor) -> Tensor:
    """What all are compared with: levels int32 (B, H, W, 3) of the readable model in float64."""
    model.double()
    with torch.inference_mode():
        images = model(phases.double(), class_ids).permute(0, 2, 3, 1)
    model.float()
    return to_uint8(images).int()


def freshly_compiled(module: nn.Module) -> Callable[..., Any]:
    """By torch.compile, which after some models of one class would silently compile no more."""
    torch.compiler.reset()
    compiled: Callable[..., Any] = torch.compile(module, dynamic=False)
    return compiled


class Plain(nn.Module):
    """Phases (B, n + n_cond) and class ids (B,) to images uint8 (B, H, W, 3)."""

    def __init__(self, model: Un0Model) -> None:
        super().__init__()
        self.config = model.config
        for name in ("omega", "K", "omega_cond", "K_cond", "K_drive"):
            self.register_buffer(name, getattr(model, name).detach().clone())
        layers: list[nn.Module] = []
        for block in model.decoder.blocks:
            layers += [nn.Upsample(scale_factor=2, mode="nearest"), block.a, nn.LeakyReLU(0.2)]
            layers += [block.b, nn.LeakyReLU(0.2)]
        self.decoder = nn.Sequential(*layers, model.decoder.out, nn.Tanh())

    def couplings(self) -> tuple[Tensor, Tensor]:
        c = self.config
        K = self.K * (1 - torch.eye(c.n, device=self.K.device)) * c.coupling_scale
        eye = torch.eye(c.n_cond, device=self.K.device)
        return K, self.K_cond * (1 - eye) * c.conditioning_scale

    def velocity(self, theta: Tensor, phi: Tensor, class_ids: Tensor) -> tuple[Tensor, Tensor]:
        K, K_cond = self.couplings()
        drive = self.K_drive[class_ids] * self.config.conditioning_scale
        sin, cos, sin_phi, cos_phi = theta.sin(), theta.cos(), phi.sin(), phi.cos()
        dtheta = self.omega + cos * self.pull(sin, K) - sin * self.pull(cos, K)
        dtheta = dtheta + cos * torch.einsum("bnm,bm->bn", drive, sin_phi)
        dtheta = dtheta - sin * torch.einsum("bnm,bm->bn", drive, cos_phi)
        dphi = self.omega_cond + cos_phi * (sin_phi @ K_cond.T) - sin_phi * (cos_phi @ K_cond.T)
        return dtheta, dphi

    def pull(self, wave: Tensor, K: Tensor) -> Tensor:
        return wave @ K.T

    def forward(self, phases: Tensor, class_ids: Tensor) -> Tensor:
        c = self.config
        theta, phi = phases[:, : c.n], phases[:, c.n :]
        dt = c.integration_time / c.num_steps
        for _ in range(c.num_steps):
            dtheta, dphi = self.velocity(theta, phi, class_ids)
            theta, phi = theta + dt * dtheta, phi + dt * dphi
        origin = theta.mean(1, keepdim=True)
        if c.relativization == "ref_oscillator":
            origin = theta[:, :1]
        features = torch.cat([(theta - origin).sin(), (theta - origin).cos()], 1)
        images = self.decoder(features.reshape(features.shape[0], -1, 4, 4))
        levels = ((images + 1) * 127.5).round().clamp(0, 255)
        return levels.to(torch.uint8).permute(0, 2, 3, 1)


class Prepared(Plain):
    """What other runtimes get: constants prepared, one product a step."""

    def __init__(self, model: Un0Model) -> None:
        super().__init__(model)
        K, K_cond = super().couplings()
        self.K_T = nn.Parameter(K.T.contiguous(), requires_grad=False)
        self.K_cond_T = nn.Parameter(K_cond.T.contiguous(), requires_grad=False)

    def couplings(self) -> tuple[Tensor, Tensor]:
        return self.K_T, self.K_cond_T.T

    def velocity(self, theta: Tensor, phi: Tensor, class_ids: Tensor) -> tuple[Tensor, Tensor]:
        drive = self.K_drive[class_ids] * self.config.conditioning_scale
        sin, cos, sin_phi, cos_phi = theta.sin(), theta.cos(), phi.sin(), phi.cos()
        by_sin, by_cos = (torch.cat([sin, cos]) @ self.K_T).chunk(2)
        drive_sin = (drive * sin_phi[:, None, :]).sum(2)
        drive_cos = (drive * cos_phi[:, None, :]).sum(2)
        dtheta = self.omega + cos * (by_sin + drive_sin) - sin * (by_cos + drive_cos)
        K_cond_T = self.K_cond_T
        dphi = self.omega_cond + cos_phi * (sin_phi @ K_cond_T) - sin_phi * (cos_phi @ K_cond_T)
        return dtheta, dphi


class Request:
    """One batch of one model: the inputs that every peer gets."""

    def __init__(self, model: Un0Model, batch: int, threads: int) -> None:
        c = model.config
        self.model, self.batch, self.threads = model, batch, threads
        self.class_ids = torch.arange(batch) % c.num_classes
        self.phases = initial_phases(0, range(batch), c.n + c.n_cond)
        self._folder = tempfile.TemporaryDirectory()
        self._onnx = Path(self._folder.name, "un0.onnx")

    def eager(self) -> Make:
        module = Plain(self.model).eval()
        return lambda: self._in_torch(module)

    def compiled(self) -> Make:
        module = freshly_compiled(Plain(self.model).eval())
        return lambda: self._in_torch(module)

    def _in_torch(self, module: Callable[..., Any]) -> Images:
        with torch.inference_mode():
            images: Images = module(self.phases, self.class_ids).numpy()
        return images

    def onnx(self) -> Path:
        """The graph for this batch."""
        if not self._onnx.exists():
            with torch.inference_mode():
                torch.onnx.export(
                    Prepared(self.model).eval(),
                    (self.phases, self.class_ids),
                    str(self._onnx),
                    input_names=["phases", "class_ids"],
                    output_names=["images"],
                    dynamo=False,
                    opset_version=17,
                )
        return self._onnx

    def onnx_int8(self, symmetric: bool) -> Path:
        """Products and convolutions in 8 bits after calibration, a scale a channel of weights.

        symmetric: signed activations without an offset, the only kind that OpenVINO takes here;
        ONNX Runtime is faster with the other.
        """
        from onnxruntime.quantization import QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        ready = Path(self._folder.name, "ready.onnx")
        target = Path(self._folder.name, f"int8-{symmetric}.onnx")
        quant_pre_process(str(self.onnx()), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            str(target),
            _Batches(self),
            op_types_to_quantize=["MatMul", "Conv"],
            per_channel=True,
            activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True, "ActivationSymmetric": symmetric},
        )
        return target

    def onnxruntime(self, path: Path) -> Make:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        inputs = {"phases": self.phases.numpy(), "class_ids": self.class_ids.numpy()}
        return lambda: session.run(None, inputs)[0]  # type: ignore[no-any-return]

    def openvino(self, path: Path) -> Make:
        import openvino

        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": self.threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = openvino.Core().compile_model(str(path), "CPU", options)
        request = compiled.create_infer_request()
        inputs = [self.phases.numpy(), self.class_ids.numpy()]
        return lambda: request.infer(inputs)[0]  # type: ignore[no-any-return]


class _Batches:
    """What ONNX Runtime calibrates with: batches of other images than the measured ones."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._left = CALIBRATION_BATCHES

    def get_next(self) -> dict[str, Any] | None:
        if self._left == 0:
            return None
        self._left -= 1
        batch, width = self._request.phases.shape
        first = 1000 + self._left * batch
        phases = initial_phases(0, range(first, first + batch), width)
        return {"phases": phases.numpy(), "class_ids": self._request.class_ids.numpy()}
