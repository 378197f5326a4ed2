"""Checkpoints as others save them: what loads, bit for bit, and what is said about the choice."""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.checkpoints import community, released_config, released_tensors, write_released
from support.cli import un0, un0_json
from torch import Tensor, nn

from un0 import Un0Model, from_pretrained, load_model, save_model
from un0.catalog import RELEASED
from un0.errors import ModelFormatError
from un0.testing import random_model


def same_weights(a: Un0Model, b: Un0Model) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


@pytest.fixture(scope="module")
def model() -> Un0Model:
    return random_model(relativization="mean_relative")


@pytest.fixture(scope="module")
def average() -> Un0Model:
    return random_model(seed=1, relativization="mean_relative")


def save(path: Path, **content: Any) -> Path:
    torch.save(content, path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ModelFormatError) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- prefixes and places ---


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "model.module."],
)
@pytest.mark.parametrize("infix", ["", "_orig_mod.", "module._orig_mod."])
def test_wrappers_prefixes_in_any_nesting(
    tmp_path: Path, model: Un0Model, prefix: str, infix: str
) -> None:
    state = {prefix + name: t for name, t in released_tensors(model, infix).items()}
    path = save(tmp_path / "m.pt", model=state, config=released_config(model))
    assert same_weights(load_model(path), model)


def test_what_torch_itself_puts_around_a_module(tmp_path: Path, model: Un0Model) -> None:
    compiled = torch.compile(model)
    assert isinstance(compiled, nn.Module)
    wrapped = nn.DataParallel(compiled)
    path = save(tmp_path / "m.pt", state_dict=wrapped.state_dict(), config=released_config(model))
    assert same_weights(load_model(path), model)


@pytest.mark.parametrize(
    "key", ["model", "state_dict", "model_state_dict", "module", "ema", "ema_model", "params_ema"]
)
def test_the_one_state_dict_is_taken_wherever_it_lies(
    tmp_path: Path, model: Un0Model, key: str
) -> None:
    content = {key: OrderedDict(released_tensors(model)), "config": released_config(model)}
    loaded = load_model(save(tmp_path / "m.pt", **content))
    assert same_weights(loaded, model)
    assert loaded.config == model.config
    assert loaded.metadata == ({"weights": key} if "ema" in key else {})


@pytest.mark.parametrize("kind", ["bare", "parts"])
def test_a_state_dict_without_its_checkpoint(tmp_path: Path, model: Un0Model, kind: str) -> None:
    state: dict[str, Any] = released_tensors(model)
    if kind == "parts":
        state = {
            part: {k.removeprefix(f"{part}."): t for k, t in state.items() if k.startswith(part)}
            for part in ("dynamics", "decoder")
        }
    (tmp_path / "config.json").write_text(json.dumps(released_config(model)))
    loaded = load_model(save(tmp_path / "m.pt", **state))
    assert same_weights(loaded, model)
    assert loaded.notes == (f"its config is that of {tmp_path / 'config.json'}",)


# --- averaged weights ---


@pytest.mark.parametrize("key", ["ema", "model_ema", "average", "flat", "ema_pytorch"])
def test_averaged_weights_are_preferred_and_said(
    tmp_path: Path, model: Un0Model, average: Un0Model, key: str
) -> None:
    state, mean = released_tensors(model), released_tensors(average)
    content: dict[str, Any] = {"config": released_config(model), "model": state, key: mean}
    taken = key
    if key == "flat":
        content = {"config": content["config"]}
        content |= {f"model.{k}": t for k, t in state.items()}
        content |= {f"ema_model.{k}": t for k, t in mean.items()}
        taken = "ema_model"
    if key == "ema_pytorch":
        inner = {f"online_model.{k}": t for k, t in state.items()}
        inner |= {f"ema_model.{k}": t for k, t in mean.items()}
        del content[key]
        content["ema"] = inner | {"initted": torch.tensor(True), "step": torch.tensor(7)}
        taken = "ema.ema_model"
    path = save(tmp_path / "m.pt", **content)
    loaded = load_model(path)
    assert same_weights(loaded, average)
    assert loaded.metadata == {"weights": taken}
    over = "ema.online_model' and 'model" if key == "ema_pytorch" else "model"
    assert loaded.notes[0] == f"the weights are those under {taken!r}, not those under '{over}'"

    other = from_pretrained(path, weights="model")
    assert same_weights(other, model)
    assert other.metadata == {}


def test_a_revision_means_one_set_of_weights(
    tmp_path: Path, model: Un0Model, average: Un0Model
) -> None:
    path = save(
        tmp_path / "m.pt",
        model=released_tensors(model),
        ema=released_tensors(average),
        config=released_config(model),
    )
    of_file = hashlib.sha256(path.read_bytes()).hexdigest()
    assert from_pretrained(path, weights="model").rev == of_file
    assert load_model(path).rev == from_pretrained(path, weights="ema").rev != of_file


def test_weights_that_are_not_there(tmp_path: Path, model: Un0Model) -> None:
    path = write_released(tmp_path / "m.pt", model)
    with pytest.raises(ModelFormatError, match="has no averaged weights; it holds model"):
        from_pretrained(path, weights="ema")
    path = save(tmp_path / "e.pt", ema=released_tensors(model), config=released_config(model))
    with pytest.raises(ModelFormatError, match="no weights but averaged ones; it holds ema"):
        from_pretrained(path, weights="model")


def test_two_averages_are_not_chosen_from(tmp_path: Path, model: Un0Model) -> None:
    one, two = released_tensors(model), released_tensors(model)
    path = save(tmp_path / "m.pt", ema=one, params_ema=two, config=released_config(model))
    assert "several sets of weights (ema, params_ema)" in refusal(path)


def test_an_average_that_is_no_state_dict_is_passed_over_and_said(
    tmp_path: Path, model: Un0Model
) -> None:
    shadow = {"decay": 0.999, "shadow_params": list(released_tensors(model).values())}
    path = save(
        tmp_path / "m.pt",
        model=released_tensors(model),
        ema=shadow,
        optimizer={"state": {}},
        epoch=3,
        config=released_config(model),
    )
    loaded = load_model(path)
    assert same_weights(loaded, model)
    assert loaded.notes == ("not of the model, and ignored: ema, epoch, optimizer",)


def test_the_command_line_says_which_and_takes_the_other(
    tmp_path: Path, model: Un0Model, average: Un0Model
) -> None:
    path = save(
        tmp_path / "m.pt",
        model=released_tensors(model),
        ema=released_tensors(average),
        config=released_config(model),
    )
    out = tmp_path / "m.safetensors"
    report = un0_json("export", str(path), str(out))
    assert report["notes"] == ["the weights are those under 'ema', not those under 'model'"]
    assert load_model(out).metadata == {"weights": "ema"}
    shown = un0("export", str(path), str(out), "--weights", "model")
    assert shown.returncode == 0
    assert "note: the weights are those under 'model', not those under 'ema'" in shown.stderr
    assert same_weights(load_model(out), model)
    shown = un0("export", str(path), str(out), "--weights", "both")
    assert shown.returncode == 2
    assert "choose auto, ema or model" in shown.stderr


# --- extra entries ---


def test_counters_and_optimizers_among_the_tensors_are_ignored(
    tmp_path: Path, model: Un0Model
) -> None:
    state: dict[str, Any] = released_tensors(model)
    state |= {"n_averaged": torch.tensor(5), "decoder.step": torch.tensor([3]), "epoch": 7}
    state |= {"optimizer.exp_avg.0": torch.zeros(64, 64)}
    loaded = load_model(save(tmp_path / "m.pt", model=state, config=released_config(model)))
    assert same_weights(loaded, model)
    ignored = "decoder.step, epoch, n_averaged and 1 more"
    assert loaded.notes == (f"not of the model, and ignored: {ignored}",)


@pytest.mark.parametrize(
    "name", ["K_second", "dynamics.K_drive2", "decoder.extra.weight", "dino.w"]
)
def test_tensors_that_might_be_the_models_are_refused(
    tmp_path: Path, model: Un0Model, name: str
) -> None:
    state = released_tensors(model) | {name: torch.zeros(4)}
    path = save(tmp_path / "m.pt", model=state, config=released_config(model))
    assert f"tensor {name} is unexpected" in refusal(path)


def test_two_tensors_of_one_name(tmp_path: Path, model: Un0Model) -> None:
    state = released_tensors(model)
    state["module.dynamics.K"] = state["dynamics.K"] + 1
    path = save(tmp_path / "m.pt", model=state, config=released_config(model))
    assert "dynamics.K and module.dynamics.K are both dynamics.K" in refusal(path)


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
    path = save(tmp_path / "m.pt", model=state, config=released_config(model))
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
    path = save(tmp_path / "m.pt", model=state, config=released_config(model))
    assert f"tensor dynamics.K holds {dtype}" in refusal(path)


def test_views_and_shared_memory_are_only_numbers(tmp_path: Path, model: Un0Model) -> None:
    state = released_tensors(model)
    state["dynamics.K"] = state["dynamics.K"].t().contiguous().t()
    store = torch.cat([state["dynamics.omega"].flatten(), state["dynamics.omega_cond"].flatten()])
    state["dynamics.omega"], state["dynamics.omega_cond"] = store[None, :64], store[None, 64:]
    path = save(tmp_path / "m.pt", model=state, config=released_config(model))
    assert same_weights(load_model(path), model)


# --- pickles, archives ---


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
