"""A whole training run: from a recipe to a model file, able to stop and go on."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from un0.checkpoint import save_model
from un0.errors import InputError
from un0.model import Un0Model
from un0.train.classifier import train_classifier
from un0.train.data import ImageSet, load_images
from un0.train.evaluate import Scores
from un0.train.features import DinoView, LossCNN, PixelView, View
from un0.train.grid import sample_grid
from un0.train.init import new_model
from un0.train.positives import PositiveQueue
from un0.train.precision import channels_last, pick_device, use_bf16
from un0.train.recipe import Recipe, ViewName, load_recipe
from un0.train.trainer import Trainer, Views

LOG_EVERY = 25


@dataclass(frozen=True)
class Progress:
    """Where a run is. cpu_s is this process's processor time, over all its threads."""

    step: int
    steps: int
    loss: float
    lr: float
    duration_s: float
    cpu_s: float


def run(
    recipe_path: str | Path,
    data: str | Path | None = None,
    *,
    out: str | Path,
    resume: bool = False,
    device: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    stop_after: int | None = None,
) -> Path:
    """Train by a recipe (a file or a bundled name) and write the averaged model to ``out``.

    Checkpoints, sample grids and a log go to ``OUT.run/`` beside it; ``resume`` goes on from the
    last checkpoint there, with the same result as an unbroken run. ``stop_after`` ends early at
    that step, with a checkpoint and no model file. Returns ``out``, or the checkpoint's path.
    """
    recipe = load_recipe(recipe_path).with_data(data)
    out = Path(out)
    run_dir = out.with_name(out.name + ".run")
    checkpoint = run_dir / "checkpoint.pt"
    if checkpoint.is_file() and not resume:
        raise InputError(
            f"{checkpoint} holds an earlier run; go on with it by --resume, or remove {run_dir}"
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    images = _training_images(recipe)
    trainer = build_trainer(recipe, images, run_dir, pick_device(device))
    if checkpoint.is_file():
        trainer.load(checkpoint)
    last = min(recipe.optim.steps, stop_after or recipe.optim.steps)
    _loop(trainer, last, run_dir, progress)
    trainer.save(checkpoint)
    if trainer.step < recipe.optim.steps:
        return checkpoint
    write_model(trainer.average, recipe, out)
    return out


def _training_images(recipe: Recipe) -> ImageSet:
    if recipe.data.source is None:
        raise InputError(f"recipe {recipe.name}: names no data; give a directory with --data")
    return load_images(recipe.data.source, "train", recipe.data.image_size)


def build_trainer(recipe: Recipe, images: ImageSet, run_dir: Path, device: torch.device) -> Trainer:
    """A trainer at step 0; the loss CNN is read from ``run_dir`` or trained and kept there."""
    bf16 = use_bf16(recipe.precision, device)
    config = recipe.model.config(len(images.labels), recipe.data.image_size)
    model = new_model(config, images.labels, recipe.init, recipe.seed, recipe.data.gray)
    model.to(device)
    channels_last(model.decoder)
    by_name: dict[ViewName, View] = {}
    for name in recipe.loss.views:
        if name == "pixels":
            by_name[name] = PixelView(recipe.data.gray)
        elif name == "cnn":
            by_name[name] = _loss_cnn(recipe, images, run_dir, device, bf16)
        else:
            by_name[name] = DinoView(device)
    views = Views(by_name)
    queue = PositiveQueue(images, views, recipe.loss.queue_per_class, device)
    return Trainer(model, views, queue, recipe, bf16)


def _loss_cnn(
    recipe: Recipe, images: ImageSet, run_dir: Path, device: torch.device, bf16: bool
) -> LossCNN:
    half = images.half("A")
    path = run_dir / f"loss-cnn-{half.digest()}.pt"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        net = LossCNN(len(images.labels), recipe.data.gray).to(device)
    channels_last(net)
    if path.is_file():
        net.load_state_dict(torch.load(path, map_location=device, weights_only=True))
        return net.eval().requires_grad_(False)
    epochs, mirror = recipe.cnn_epochs, recipe.data.mirror
    train_classifier(net, net.logits, half, epochs, recipe.seed, mirror=mirror, bf16=bf16)
    torch.save(net.state_dict(), path)
    return net


def _loop(
    trainer: Trainer, last: int, run_dir: Path, progress: Callable[[Progress], None] | None
) -> None:
    recipe = trainer.recipe
    began = time.monotonic()
    with (run_dir / "log.jsonl").open("a") as log:
        while trainer.step < last:
            lr = recipe.optim.lr * trainer.lr_factor()
            loss = trainer.train_step()
            step = trainer.step
            if step % LOG_EVERY == 0 or step == last:
                usage = resource.getrusage(resource.RUSAGE_SELF)
                report = Progress(
                    step, recipe.optim.steps, loss, lr,
                    duration_s=time.monotonic() - began, cpu_s=usage.ru_utime + usage.ru_stime,
                )  # fmt: skip
                log.write(json.dumps(asdict(report)) + "\n")
                log.flush()
                if progress is not None:
                    progress(report)
            if step % recipe.save_every == 0:
                trainer.save(run_dir / "checkpoint.pt")
            if step % recipe.sample_every == 0:
                sample_grid(trainer.average, run_dir / f"samples-{step:06d}.png")


def write_model(model: Un0Model, recipe: Recipe, out: Path, scores: Sequence[Scores] = ()) -> str:
    """Save the model with the metadata that others need to use it; returns its sha256."""
    metadata = {
        "name": recipe.name,
        "data": recipe.data.source,
        "licence": recipe.data.licence,
        "recipe": recipe.model_dump(mode="json"),
        "recipe_hash": recipe.hash(),
        "scores": [asdict(s) for s in scores],
    }
    return save_model(model, out, extra_metadata=metadata)
