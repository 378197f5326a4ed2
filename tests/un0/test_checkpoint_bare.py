"""Checkpoints that lack their config, hold other numbers, or are packed in something else."""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.support.checkpoints import (
    community,
    refusal,
    released_config,
    released_tensors,
    same_weights,
    save_content,
    write_released,
)
from un0 import Un0Model, load_model, save_model
from un0.catalog import RELEASED
from un0.testing import random_model


@pytest.fixture(scope="module")
def model() -> Un0Model:
    return random_model(relativization="mean_relative")


# --- without its config ---


@pytest.mark.parametrize("layout", ["released", "own", "community"])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_saved_again_without_metadata(
    tmp_path: Path, model: Un0Model, layout: str, suffix: str
) -> None:
    """Shapes show n, classes and blocks. The rest is asked for by name, and then it loads."""
    tensors: dict[str, Tensor] = {
        "released": released_tensors(model),
        "own": dict(model.state_dict()),
        "community": community(model)[0],
    }[layout]
    path = tmp_path / f"m.{suffix}"
    if suffix == "pt":
        torch.save(tensors, path)
    else:
        save_file(tensors, path, {"format": "pt"})
    said = refusal(path)
    for key in ("num_steps", "solver", "parameterization", "relativization"):
        assert f"{key}" in said
    beside = tmp_path / "config.json"
    assert f"write them into {beside}" in said

    stated = json.loads(said[said.index("{") :]) | {"relativization": "mean_relative"}
    beside.write_text(json.dumps(stated))
    loaded = load_model(path)
    assert loaded.config == model.config
    digests = [hashlib.sha256(p.read_bytes()).digest() for p in (path, beside)]
    assert loaded.rev == hashlib.sha256(b"".join(digests)).hexdigest()
    beside.write_text(json.dumps(stated | {"num_steps": 3}))
    assert load_model(path).rev != loaded.rev


def test_shapes_of_a_released_model_give_its_config_to_paste(tmp_path: Path) -> None:
    c = RELEASED["cifar10/n1024"].config
    model = random_model(n=c.n, n_cond=c.n_cond, relativization=c.relativization)
    path = tmp_path / "m.safetensors"
    save_file(released_tensors(model), path)
    said = refusal(path)
    assert "the shapes of cifar10/n1024; if it is that model, write" in said
    (tmp_path / "config.json").write_text(said[said.index("{") :])
    assert load_model(path).config == c


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{}", "has none of num_steps, solver"),
        ('{"model_type": "un0"}', "has none of num_steps, solver"),
        ("[]", "has none of num_steps, solver"),
        ("not json", "is not JSON"),
        ("version https://git-lfs.github.com/spec/v1\n", "is a Git-LFS pointer"),
        ('{"num_steps": 10, "solver": "dopri5"}', "solver is 'dopri5'"),
        ('{"num_steps": 10, "n_oscillators": 128}', "expected (128,)"),
    ],
)
def test_a_config_beside_it_that_does_not_help(
    tmp_path: Path, model: Un0Model, content: str, says: str
) -> None:
    save_file(released_tensors(model), tmp_path / "m.safetensors")
    (tmp_path / "config.json").write_text(content)
    assert says in refusal(tmp_path / "m.safetensors")


def test_a_config_beside_a_file_that_states_its_own_changes_nothing(
    tmp_path: Path, model: Un0Model
) -> None:
    rev = save_model(model, tmp_path / "m.safetensors")
    (tmp_path / "config.json").write_text('{"num_steps": 99}')
    loaded = load_model(tmp_path / "m.safetensors")
    assert (loaded.config, loaded.rev) == (model.config, rev)


# --- numbers ---


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_types_load_as_their_own_values(
    tmp_path: Path, model: Un0Model, dtype: torch.dtype
) -> None:
    state = {k: t.to(dtype) for k, t in released_tensors(model).items()}
    path = save_content(tmp_path / "m.pt", model=state, config=released_config(model))
    assert torch.equal(load_model(path).K, model.K.to(dtype).float())


@pytest.mark.parametrize("dtype", [torch.int8, torch.qint8, torch.complex64])
def test_quantised_and_other_numbers_are_refused(
    tmp_path: Path, model: Un0Model, dtype: torch.dtype
) -> None:
    state = released_tensors(model)
    K = state["dynamics.K"]
    state["dynamics.K"] = (
        torch.quantize_per_tensor(K, 0.1, 0, dtype) if dtype is torch.qint8 else K.to(dtype)
    )
    path = save_content(tmp_path / "m.pt", model=state, config=released_config(model))
    assert f"tensor dynamics.K holds {dtype}" in refusal(path)


def test_views_and_shared_memory_are_only_numbers(tmp_path: Path, model: Un0Model) -> None:
    state = released_tensors(model)
    state["dynamics.K"] = state["dynamics.K"].t().contiguous().t()
    store = torch.cat([state["dynamics.omega"].flatten(), state["dynamics.omega_cond"].flatten()])
    state["dynamics.omega"], state["dynamics.omega_cond"] = store[None, :64], store[None, 64:]
    path = save_content(tmp_path / "m.pt", model=state, config=released_config(model))
    assert same_weights(load_model(path), model)


# --- pickles, archives ---


@pytest.mark.slow
def test_classes_in_a_pickle_are_named_and_the_command_given_works(
    tmp_path: Path, model: Un0Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for legacy in (False, True):
        config = argparse.Namespace(**released_config(model))
        torch.save(
            {"model": released_tensors(model), "config": config},
            "m.pt",
            _use_new_zipfile_serialization=not legacy,
        )
        said = refusal(Path("m.pt"))
        assert "needs code to be run (argparse.Namespace), which is refused" in said
    command = shlex.split(said[said.index("python -c") :])
    subprocess.run([sys.executable, *command[1:]], check=True)
    assert same_weights(load_model("plain-m.pt"), model)


def test_a_torchscript_program(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w") as archive:  # as torch.jit.save lays it out
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"m/{name}", b"")
    assert "is a TorchScript program" in refusal(path)


def test_a_zip_around_a_checkpoint(tmp_path: Path, model: Un0Model) -> None:
    inner = write_released(tmp_path / "inner.pt", model)
    outer = tmp_path / "m.zip"
    with zipfile.ZipFile(outer, "w") as archive:
        archive.write(inner, "weights/inner.pt")
    assert "is a zip archive, not a checkpoint; unpack it, and give weights/inner.pt" in refusal(
        outer
    )


def test_a_checkpoint_that_was_zipped_again_is_the_same(tmp_path: Path, model: Un0Model) -> None:
    with (
        zipfile.ZipFile(write_released(tmp_path / "a.pt", model)) as plain,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert same_weights(load_model(tmp_path / "b.pt"), model)


def test_a_download_cut_short_says_how_long_it_is(tmp_path: Path, model: Un0Model) -> None:
    whole = write_released(tmp_path / "a.pt", model).read_bytes()
    (tmp_path / "b.pt").write_bytes(whole[: len(whole) // 2])
    assert f"cut short at {len(whole) // 2:,} bytes" in refusal(tmp_path / "b.pt")
