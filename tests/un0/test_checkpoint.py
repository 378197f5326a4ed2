"""Checkpoints: three layouts in, one out, and nothing lost on the way."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tests.support.checkpoints import (
    community,
    released_config,
    released_tensors,
    same_weights,
    write_released,
)
from un0 import Un0Model, load_model, save_model
from un0.errors import InputError, ModelFormatError
from un0.testing import random_model

LABELS = tuple("abcdefghij")


def images_of(model: Un0Model) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    width = model.config.n + model.config.n_cond
    phases = (torch.rand(3, width, generator=generator) * 2 - 1) * torch.pi
    images: Tensor = model(phases, torch.tensor([0, 4, 9]))
    return images


# --- round trips ---


@pytest.mark.parametrize("infix", ["", "_orig_mod."])
@pytest.mark.parametrize("legacy", [False, True])
def test_released_layout(tmp_path: Path, infix: str, legacy: bool) -> None:
    model = random_model(parameterization="mup", solver="rk4", relativization="mean_relative")
    path = tmp_path / "model.pt"
    content = {"model": released_tensors(model, infix), "config": released_config(model)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)

    loaded = load_model(path)
    assert loaded.config == model.config
    assert same_weights(loaded, model)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize(
    ("num_blocks", "expected"),
    [
        (3, ("standard", "rk4", 25, "ref_oscillator", "sin_cos")),
        (4, ("mup", "euler", 10, "ref_oscillator", "sin_cos")),
    ],
)
def test_released_config_that_is_silent_means_its_family(
    tmp_path: Path, num_blocks: int, expected: tuple[object, ...]
) -> None:
    model = random_model(num_blocks=num_blocks)
    config = load_model(write_released(tmp_path / "model.pt", model, config={"epochs": 3})).config
    assert (config.n, config.n_cond, config.num_classes, config.num_blocks) == (
        64,
        2,
        10,
        num_blocks,
    )
    assert expected == (
        config.parameterization,
        config.solver,
        config.num_steps,
        config.relativization,
        config.encoding,
    )


def test_released_config_of_no_family_must_speak(tmp_path: Path) -> None:
    model = random_model(num_blocks=2)
    assert load_model(write_released(tmp_path / "full.pt", model)).config == model.config
    with pytest.raises(ModelFormatError, match=r"config key num_steps is absent.*2 decoder blocks"):
        load_model(write_released(tmp_path / "silent.pt", model, config={}))


@pytest.mark.parametrize("parameterization", ["standard", "mup"])
def test_community_layout(tmp_path: Path, parameterization: str) -> None:
    """Diagonals are gone and mup scales applied, so the pictures agree and the weights do not."""
    model = random_model(parameterization=parameterization)
    tensors, metadata = community(model)
    save_file(tensors, tmp_path / "model.safetensors", metadata)
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.config.parameterization == "standard"
    torch.testing.assert_close(images_of(loaded), images_of(model), rtol=0, atol=2e-5)


def test_own_export_keeps_everything(tmp_path: Path) -> None:
    model = random_model(labels=LABELS, parameterization="mup", integration_time=1.5)
    extra = {"licence": "MIT", "scores": {"fid": [1.5, 2.5]}, "data": "été"}
    path = tmp_path / "model.safetensors"
    rev = save_model(model, path, extra_metadata=extra)

    loaded = load_model(path)
    assert loaded.config == model.config
    assert loaded.labels == LABELS
    assert loaded.metadata == extra
    assert loaded.rev == rev == hashlib.sha256(path.read_bytes()).hexdigest()
    assert same_weights(loaded, model)
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["format"] == "un0"
        assert file.metadata()["format_version"] == "1"


def test_export_in_half_precision(tmp_path: Path) -> None:
    model = random_model()
    save_model(model, tmp_path / "half.safetensors", dtype=torch.float16)
    save_model(model, tmp_path / "full.safetensors")
    half = load_model(tmp_path / "half.safetensors")
    assert half.K.dtype == torch.float32
    assert torch.equal(half.K, model.K.half().float())
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.6 * sizes[1]


def test_loading_in_another_dtype(tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors", torch.float64)
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float64}
    with pytest.raises(InputError, match=r"dtype is torch\.int8"):
        load_model(tmp_path / "model.safetensors", torch.int8)


def test_the_same_export_is_the_same_bytes(tmp_path: Path) -> None:
    revs = {save_model(random_model(), tmp_path / f"{i}.safetensors") for i in range(2)}
    assert len(revs) == 1
    assert save_model(random_model(seed=1), tmp_path / "2.safetensors") not in revs


def test_a_loaded_model_does_not_change_with_its_file(tmp_path: Path) -> None:
    path = write_released(tmp_path / "model.pt", random_model())
    loaded = load_model(path)
    before = loaded.K.clone()
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert torch.equal(loaded.K, before)


def test_revision_of_a_model_in_memory_is_of_its_weights_and_config() -> None:
    revs = {
        random_model().rev,
        random_model(seed=1).rev,
        random_model(num_steps=11).rev,
        random_model().double().rev,
    }
    assert len(revs) == 4
    assert random_model().rev in revs


# --- what cannot be written ---


def test_saving_refuses_what_could_not_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model = random_model()
    with pytest.raises(InputError, match=r"dtype is torch\.int8"):
        save_model(model, path, dtype=torch.int8)
    with pytest.raises(InputError, match="extra_metadata cannot be written as JSON"):
        save_model(model, path, extra_metadata={"when": object()})
    with pytest.raises(ModelFormatError, match="2 labels for 10 classes"):
        save_model(random_model(labels=("a", "b")), path)
    model.K[3, 4] = 1e6
    with pytest.raises(ModelFormatError, match=r"tensor K holds NaN or infinite.*float16"):
        save_model(model, path, dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []


def test_saving_nowhere(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for place in ("absent/m.safetensors", "folder", "file/m.safetensors"):
        with pytest.raises(InputError, match="cannot be written"):
            save_model(random_model(), tmp_path / place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_saving_replaces_a_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_model(random_model(), path)
    rev = save_model(random_model(seed=1), path)
    assert load_model(path).rev == rev
    assert [file.name for file in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_mapped_model_holds_no_copy_of_its_weights(tmp_path: Path) -> None:
    """Its tensors are the file's pages: an edit in place would show. Other models do not see it."""
    model = random_model(n=256)
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    mapped, copied = load_model(path, mapped=True), load_model(path)
    assert mapped.rev == copied.rev
    assert torch.equal(mapped.K, model.K)
    pages = Path("/proc/self/maps").read_text()
    assert pages.count(str(path)) >= 1
    content = bytearray(path.read_bytes())
    at = content.find(model.K.numpy().tobytes())
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\0\0\0\0")
    assert mapped.K[0, 0] == 0
    assert copied.K[0, 0] == model.K[0, 0] != 0
