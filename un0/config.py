"""Architecture of an Un-0 model, and the defaults that released families fall back to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from un0.errors import ModelFormatError

Solver = Literal["euler", "rk4"]
Parameterization = Literal["standard", "mup"]
Relativization = Literal["absolute", "mean_relative", "ref_oscillator"]
Encoding = Literal["raw", "sin", "sin_cos"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "solver": get_args(Solver),
    "parameterization": get_args(Parameterization),
    "relativization": get_args(Relativization),
    "encoding": get_args(Encoding),
}

SEED_SIZE = 4  # side of the feature map that the phases are reshaped to
SHOWN = 80
MIN_CHANNELS = 32  # floor of the decoder's halving channel count


@dataclass(frozen=True)
class ModelConfig:
    """Shape and mathematics of one model. Immutable; validated on construction.

    n, n_cond: numbers of main and conditioning oscillators.
    num_blocks: decoder blocks; images are ``4 * 2**num_blocks`` pixels on a side.
    integration_time: length of the time interval that ``num_steps`` equal steps cover.
    """

    n: int
    n_cond: int
    num_classes: int
    num_blocks: int
    num_steps: int
    solver: Solver
    parameterization: Parameterization
    relativization: Relativization
    encoding: Encoding
    integration_time: float = 1.0
    class_dropout_prob: float = 0.1

    def __post_init__(self) -> None:
        for name in ("n", "n_cond", "num_classes", "num_blocks", "num_steps"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ModelFormatError(
                    f"model config: {name} is {shown(value)}; it must be a positive whole number"
                )
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ModelFormatError(
                    f"model config: {name} is {shown(value)}; this build knows {', '.join(allowed)}"
                )
        if not (_is_number(self.integration_time) and self.integration_time > 0):
            raise ModelFormatError(
                f"model config: integration_time is {shown(self.integration_time)}; it must be > 0"
            )
        if not (_is_number(self.class_dropout_prob) and 0 <= self.class_dropout_prob <= 1):
            raise ModelFormatError(
                f"model config: class_dropout_prob is {shown(self.class_dropout_prob)}; "
                "it must be from 0 to 1"
            )
        if self.num_features % SEED_SIZE**2:
            raise ModelFormatError(
                f"model config: {self.num_features} features (n={self.n}, encoding="
                f"{self.encoding}) do not divide into a {SEED_SIZE}x{SEED_SIZE} map; "
                f"n must be a multiple of {16 if self.encoding != 'sin_cos' else 8}"
            )

    @property
    def num_features(self) -> int:
        return 2 * self.n if self.encoding == "sin_cos" else self.n

    @property
    def image_size(self) -> int:
        return int(SEED_SIZE * 2**self.num_blocks)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channel counts along the decoder, input of the first block first."""
        counts = [self.num_features // SEED_SIZE**2]
        for _ in range(self.num_blocks):
            counts.append(max(counts[-1] // 2, MIN_CHANNELS))
        return tuple(counts)

    @property
    def coupling_scale(self) -> float:
        """What K is multiplied by at use."""
        return self.n**-0.5 if self.parameterization == "mup" else 1.0

    @property
    def conditioning_scale(self) -> float:
        """What K_cond and K_drive are multiplied by at use."""
        return self.n_cond**-0.5 if self.parameterization == "mup" else 1.0

    @property
    def num_params(self) -> int:
        """Numbers in a checkpoint, learned diagonals included."""
        couplings = self.n * (self.n + 1) + self.n_cond * (self.n_cond + 1)
        drive = self.num_classes * self.n * self.n_cond
        convs = [(self.channels[-1], 3)]
        for c_in, c_out in pairwise(self.channels):
            convs += [(c_in, c_out), (c_out, c_out)]
        return couplings + drive + sum((9 * c_in + 1) * c_out for c_in, c_out in convs)


def shown(value: object) -> str:
    """A value from a file, for a message: on one line of at most 80 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and -math.inf < value < math.inf
