"""Checkpoints as others save them: what loads, bit for bit, and what is said about the choice."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from jobs.cli.main import app
from tests.support.checkpoints import (
    refusal,
    released_config,
    released_tensors,
    same_weights,
    save_content,
    write_released,
)
from un0 import Un0Model, from_pretrained, load_model
from un0.errors import ModelFormatError
from un0.testing import random_model


@pytest.fixture(scope="module")
def model() -> Un0Model:
    return random_model(relativization="mean_relative")


@pytest.fixture(scope="module")
def average() -> Un0Model:
    return random_model(seed=1, relativization="mean_relative")


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
    path = save_content(tmp_path / "m.pt", model=state, config=released_config(model))
    assert same_weights(load_model(path), model)


@pytest.mark.slow  # torch.compile takes seconds to import
def test_what_torch_itself_puts_around_a_module(tmp_path: Path, model: Un0Model) -> None:
    compiled = torch.compile(model)
    assert isinstance(compiled, nn.Module)
    wrapped = nn.DataParallel(compiled)
    path = save_content(
        tmp_path / "m.pt", state_dict=wrapped.state_dict(), config=released_config(model)
    )
    assert same_weights(load_model(path), model)


@pytest.mark.parametrize(
    "key", ["model", "state_dict", "model_state_dict", "module", "ema", "ema_model", "params_ema"]
)
def test_the_one_state_dict_is_taken_wherever_it_lies(
    tmp_path: Path, model: Un0Model, key: str
) -> None:
    content = {key: OrderedDict(released_tensors(model)), "config": released_config(model)}
    loaded = load_model(save_content(tmp_path / "m.pt", **content))
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
    loaded = load_model(save_content(tmp_path / "m.pt", **state))
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
    path = save_content(tmp_path / "m.pt", **content)
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
    path = save_content(
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
    path = save_content(
        tmp_path / "e.pt", ema=released_tensors(model), config=released_config(model)
    )
    with pytest.raises(ModelFormatError, match="no weights but averaged ones; it holds ema"):
        from_pretrained(path, weights="model")


def test_two_averages_are_not_chosen_from(tmp_path: Path, model: Un0Model) -> None:
    one, two = released_tensors(model), released_tensors(model)
    path = save_content(tmp_path / "m.pt", ema=one, params_ema=two, config=released_config(model))
    assert "several sets of weights (ema, params_ema)" in refusal(path)


def test_an_average_that_is_no_state_dict_is_passed_over_and_said(
    tmp_path: Path, model: Un0Model
) -> None:
    shadow = {"decay": 0.999, "shadow_params": list(released_tensors(model).values())}
    path = save_content(
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
    path = save_content(
        tmp_path / "m.pt",
        model=released_tensors(model),
        ema=released_tensors(average),
        config=released_config(model),
    )
    out = tmp_path / "m.safetensors"
    shown = CliRunner().invoke(app, ["export", str(path), str(out), "--json"])
    notes = ["the weights are those under 'ema', not those under 'model'"]
    assert json.loads(shown.stdout)["notes"] == notes
    assert load_model(out).metadata == {"weights": "ema"}
    shown = CliRunner().invoke(app, ["export", str(path), str(out), "--weights", "model"])
    assert shown.exit_code == 0
    assert "note: the weights are those under 'model', not those under 'ema'" in shown.stderr
    assert same_weights(load_model(out), model)
    shown = CliRunner().invoke(app, ["export", str(path), str(out), "--weights", "both"])
    assert "choose auto, ema or model" in str(shown.exception)


# --- extra entries ---


def test_counters_and_optimizers_among_the_tensors_are_ignored(
    tmp_path: Path, model: Un0Model
) -> None:
    state: dict[str, Any] = released_tensors(model)
    state |= {"n_averaged": torch.tensor(5), "decoder.step": torch.tensor([3]), "epoch": 7}
    state |= {"optimizer.exp_avg.0": torch.zeros(64, 64)}
    loaded = load_model(save_content(tmp_path / "m.pt", model=state, config=released_config(model)))
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
    path = save_content(tmp_path / "m.pt", model=state, config=released_config(model))
    assert f"tensor {name} is unexpected" in refusal(path)


def test_two_tensors_of_one_name(tmp_path: Path, model: Un0Model) -> None:
    state = released_tensors(model)
    state["module.dynamics.K"] = state["dynamics.K"] + 1
    path = save_content(tmp_path / "m.pt", model=state, config=released_config(model))
    assert "dynamics.K and module.dynamics.K are both dynamics.K" in refusal(path)
