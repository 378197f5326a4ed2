"""A training recipe: everything that decides the weights, in one strict YAML file with a hash."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from un0.config import Encoding, ModelConfig, Parameterization, Relativization, Solver
from un0.documents import parse, read_mapping
from un0.errors import InputError
from un0.quantities import parse_count
from un0.suggest import did_you_mean

Positive = Annotated[int, BeforeValidator(parse_count), Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
ViewName = Literal["pixels", "cnn", "dinov2"]
Precision = Literal["auto", "fp32", "bf16"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ModelRecipe(_Strict):
    """The architecture, less the number of classes, which the data decides."""

    n: Positive
    n_cond: Positive = 1
    num_steps: Positive = 10
    integration_time: float = 1.0
    solver: Solver = "euler"
    parameterization: Parameterization = "standard"
    relativization: Relativization = "ref_oscillator"
    encoding: Encoding = "sin_cos"
    class_dropout_prob: Share = 0.0

    def config(self, num_classes: int, image_size: int) -> ModelConfig:
        """The ModelConfig for this many classes; image_size is 32 or 64."""
        blocks = {32: 3, 64: 4}[image_size]
        return ModelConfig(num_classes=num_classes, num_blocks=blocks, **self.model_dump())


class DataRecipe(_Strict):
    """Where the images are: a directory, or ``hub:OWNER/NAME`` on the Hugging Face Hub."""

    source: str | None = None
    image_size: Literal[32, 64] = 32
    gray: bool = False  # images have three equal channels; features then see one
    mirror: bool = False  # left-right mirrored copies are real images too
    licence: str | None = None


class InitRecipe(_Strict):
    """Scales of the random initialisation; see ``init.py`` for what each does."""

    coupling: float = 1.0
    drive: float = 2.5
    omega: float = 0.3
    reference_drive: float = 14.0


class LossRecipe(_Strict):
    """The drift loss. ``views`` gives each view's share of the gradient at the images."""

    generated_per_class: Annotated[Positive, Field(ge=2)] = 16
    positives_per_class: Positive = 64
    classes_per_step: Positive | None = None  # None: all of them
    queue_per_class: Positive = 6000
    gamma: Share = 0.1
    temperatures: list[Annotated[float, Field(gt=0)]] = [0.02, 0.05, 0.2]
    views: dict[ViewName, Annotated[float, Field(gt=0)]] = {"pixels": 1.0, "cnn": 1.0}


class OptimRecipe(_Strict):
    """AdamW with warm-up and decay, exponential moving average of the weights, clipping."""

    steps: Positive
    lr: Annotated[float, Field(gt=0)] = 2e-3
    betas: list[float] = [0.9, 0.95]
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup_steps: Positive = 400
    decay: Annotated[float, Field(gt=0, le=1)] = 0.5  # share of the steps, the last ones
    decay_shape: Literal["cosine", "linear"] = "linear"
    ema_decay: Share = 0.999
    clip: Annotated[float, Field(gt=0)] = 1.0


class Recipe(_Strict):
    """One training run. The same recipe on the same hardware gives the same weights."""

    name: str
    seed: int = 0
    model: ModelRecipe
    data: DataRecipe = DataRecipe()
    init: InitRecipe = InitRecipe()
    loss: LossRecipe = LossRecipe()
    optim: OptimRecipe
    cnn_epochs: Positive = 6
    precision: Precision = "auto"
    save_every: Positive = 250  # steps between checkpoints
    sample_every: Positive = 500  # steps between grids of samples

    def hash(self) -> str:
        """Sixteen hex digits of the recipe's content, wherever the data lies on this machine."""
        content = self.model_dump(mode="json")
        content["data"].pop("source")
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def with_data(self, source: str | Path | None) -> Recipe:
        """The same recipe on other data; None keeps the recipe's own."""
        if source is None:
            return self
        return self.model_copy(
            update={"data": self.data.model_copy(update={"source": str(source)})}
        )


def bundled_recipes() -> dict[str, Path]:
    """Recipes that ship with the package, by file name without ``.yaml``."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "recipes").glob("*.yaml"))}


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe file, or a bundled one by name. Raises InputError naming what to fix."""
    bundled = bundled_recipes()
    path = bundled.get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        name = str(name_or_path)
        fix = did_you_mean(name, bundled, then=f"bundled recipes are {', '.join(bundled)}")
        raise InputError(f"recipe {name!r}: no such file; {fix}")
    return parse(Recipe, read_mapping(path, "recipe", "name: my-model"), f"recipe {path}")
