"""Training end to end on a folder of coloured shapes: it learns, stops, goes on, and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from un0.checkpoint import load_model
from un0.errors import InputError
from un0.train import Judge, Progress, Recipe, bundled_recipes, evaluate, load_recipe, run
from un0.train.data import load_images
from un0.train.examples import write_coloured_shapes
from un0.train.init import new_model

pytestmark = pytest.mark.timeout(900)  # training takes minutes on a busy machine

RECIPE = {
    "name": "shapes",
    "model": {"n": 128},
    "loss": {"generated_per_class": 8, "positives_per_class": 32, "queue_per_class": 100},
    "cnn_epochs": 4,
    "optim": {"steps": 200, "warmup_steps": 20, "ema_decay": 0.95},
    "save_every": 50,
    "sample_every": 100,
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coloured_shapes(tmp_path_factory.mktemp("shapes"), per_class=200)


def write_recipe(folder: Path, **changes: object) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(RECIPE | changes))
    return path


def short_recipe(folder: Path, steps: int = 8) -> Path:
    return write_recipe(
        folder,
        loss=RECIPE["loss"] | {"views": {"pixels": 1.0}},
        optim={"steps": steps, "warmup_steps": 2},
        save_every=3,
    )


def assert_same_model(a: Path, b: Path) -> None:
    """Equal to the last bit, in weights and in what the file says of itself."""
    first, second = load_model(a), load_model(b)
    assert first.metadata == second.metadata
    for (name, x), y in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(x, y), name


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_weights_as_an_unbroken_one(
    shapes: Path, tmp_path: Path
) -> None:
    recipe = short_recipe(tmp_path)
    unbroken = run(recipe, shapes, out=tmp_path / "a.safetensors")
    stopped = run(recipe, shapes, out=tmp_path / "b.safetensors", stop_after=5)
    assert not (tmp_path / "b.safetensors").exists()
    assert stopped.is_file()
    resumed = run(recipe, shapes, out=tmp_path / "b.safetensors", resume=True)
    assert_same_model(resumed, unbroken)


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_checkpoint(shapes: Path, tmp_path: Path) -> None:
    recipe = short_recipe(tmp_path)
    unbroken = run(recipe, shapes, out=tmp_path / "a.safetensors")

    def crash(progress: Progress) -> None:
        raise RuntimeError(f"power cut after step {progress.step}")

    out = tmp_path / "b.safetensors"
    with pytest.raises(RuntimeError, match="step 8"):
        run(recipe, shapes, out=out, progress=crash)
    assert_same_model(run(recipe, shapes, out=out, resume=True), unbroken)


def test_an_earlier_run_is_not_overwritten_by_mistake(shapes: Path, tmp_path: Path) -> None:
    recipe = short_recipe(tmp_path, steps=2)
    out = run(recipe, shapes, out=tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="--resume"):
        run(recipe, shapes, out=out)


def test_a_checkpoint_of_another_recipe_is_refused(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    run(short_recipe(tmp_path, steps=2), shapes, out=out)
    with pytest.raises(InputError, match=r"another recipe|resume with the recipe"):
        run(short_recipe(tmp_path, steps=3), shapes, out=out, resume=True)


def test_a_recipe_without_data_asks_for_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data"):
        run(short_recipe(tmp_path), out=tmp_path / "a.safetensors")


def test_a_misspelt_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"optim\.learning_rate"):
        load_recipe(write_recipe(tmp_path, optim={"steps": 1, "learning_rate": 1.0}))


@pytest.mark.parametrize("name", bundled_recipes())
def test_bundled_recipes_are_valid_and_name_a_model_that_can_be_built(name: str) -> None:
    recipe = load_recipe(name)
    config = recipe.model.config(10, recipe.data.image_size)
    model = new_model(config, (), recipe.init, recipe.seed, recipe.data.gray)
    assert model.config.image_size == recipe.data.image_size


def test_the_hash_names_the_recipe_and_not_where_its_data_lie() -> None:
    recipe = Recipe.model_validate(RECIPE)
    assert recipe.with_data("/elsewhere").hash() == recipe.hash()
    assert recipe.model_copy(update={"seed": 1}).hash() != recipe.hash()


def test_a_new_model_brings_oscillator_0_to_its_driver_from_almost_any_start() -> None:
    recipe = Recipe.model_validate(RECIPE)
    model = new_model(recipe.model.config(4, 32), (), recipe.init, 0, gray=False)
    n = model.config.n
    g = torch.Generator().manual_seed(0)
    phases = (torch.rand(20_000, n + 1, generator=g) * 2 - 1) * torch.pi
    with torch.no_grad():
        final = model.integrate(phases, torch.arange(20_000) % 4)
    offset = (final[:, 0] - final[:, n]).cos()
    assert (offset < 0.9).float().mean() < 0.001


@pytest.mark.slow
def test_two_hundred_steps_lower_cnn_frechet_and_resume_identically(
    shapes: Path, tmp_path: Path
) -> None:
    recipe_path = write_recipe(tmp_path)
    out = tmp_path / "a.safetensors"
    run(recipe_path, shapes, out=out, stop_after=110)
    run(recipe_path, shapes, out=out, resume=True)
    unbroken = run(recipe_path, shapes, out=tmp_path / "b.safetensors")
    assert_same_model(out, unbroken)

    grids = sorted(p.name for p in (tmp_path / "a.safetensors.run").glob("*.png"))
    assert grids == ["samples-000100.png", "samples-000200.png"]
    trained = load_model(out)
    assert trained.labels == ("circle", "cross", "square", "triangle")
    recipe = load_recipe(recipe_path)
    untrained = new_model(trained.config, trained.labels, recipe.init, recipe.seed, gray=False)
    judge = Judge(load_images(shapes, "train"), load_images(shapes, "test"), cache_dir=tmp_path)
    before, after = evaluate(untrained, judge), evaluate(trained, judge)
    assert after.cnn_frechet < 0.7 * before.cnn_frechet
    assert after.accuracy > before.accuracy
