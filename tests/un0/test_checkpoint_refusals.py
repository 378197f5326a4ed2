"""Every way a checkpoint file can be wrong, and what is said about it."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.support.checkpoints import (
    Tensors,
    community,
    released_config,
    released_tensors,
    write_released,
)
from un0 import from_pretrained, load_model, save_model
from un0.errors import ModelFormatError, ModelNotFoundError
from un0.testing import random_model

LFS = "a Git-LFS pointer, not the file of 5,300,123 bytes it stands for; run `git lfs pull`"


def refused(path: Path, *says: str) -> None:
    """Loading is refused with the file's name and each of these texts."""
    with pytest.raises(ModelFormatError) as caught:
        load_model(path)
    for text in (str(path), *says):
        assert text in str(caught.value)


class TestTensors:
    """The same complaints, whichever layout: the tensor is named as in the file."""

    @pytest.fixture(params=["released", "community", "own"])
    def layout(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def write(self, path: Path, layout: str, change: Callable[[Tensors, Any], None]) -> Path:
        model = random_model()
        if layout == "released":
            content = {"model": released_tensors(model), "config": released_config(model)}
            change(content["model"], content["config"])
            torch.save(content, path)
        elif layout == "community":
            tensors, metadata = community(model)
            change(tensors, metadata)
            save_file(tensors, path, metadata)
        else:
            save_model(model, path)
            tensors = load_file(path)
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
            change(tensors, metadata)
            save_file(tensors, path, metadata)
        return path

    def test_missing(self, tmp_path: Path, layout: str) -> None:
        name = {"released": "decoder.to_output.bias", "community": "out.bias"}
        name_in_file = name.get(layout, "decoder.out.bias")
        path = self.write(tmp_path / "m", layout, lambda t, _: t.pop(name_in_file))
        refused(path, f"tensor {name_in_file} is missing")

    def test_missing_block(self, tmp_path: Path, layout: str) -> None:
        def drop_last_block(tensors: Tensors, _: Any) -> None:
            for name in [n for n in tensors if ".2." in n]:
                del tensors[name]

        path = self.write(tmp_path / "m", layout, drop_last_block)
        if layout == "released":  # states no number: then it is a model of 16x16 images
            assert load_model(path).config.image_size == 16
        else:
            refused(path, "num_blocks is 3, but the file holds 2 decoder blocks")

    def test_unexpected(self, tmp_path: Path, layout: str) -> None:
        path = self.write(
            tmp_path / "m", layout, lambda t, _: t.update({"intruder": torch.zeros(1)})
        )
        refused(path, "tensor intruder is unexpected")

    def test_wrong_shape(self, tmp_path: Path, layout: str) -> None:
        name = "dynamics.K" if layout == "released" else "K"
        path = self.write(
            tmp_path / "m", layout, lambda t, _: t.update({name: torch.zeros(64, 63)})
        )
        refused(path, f"tensor {name} has shape (64, 63), expected (64, 64)")

    def test_whole_numbers(self, tmp_path: Path, layout: str) -> None:
        name = "dynamics.K" if layout == "released" else "K"
        path = self.write(tmp_path / "m", layout, lambda t, _: t.update({name: t[name].int()}))
        refused(path, f"tensor {name} holds torch.int32")

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_not_finite(self, tmp_path: Path, layout: str, value: float) -> None:
        name = "dynamics.K_drive" if layout == "released" else "K_drive"
        path = self.write(tmp_path / "m", layout, lambda t, _: t[name].view(-1)[7:8].fill_(value))
        refused(path, "tensor K_drive holds NaN or infinite values")

    def test_truncated(self, tmp_path: Path, layout: str) -> None:
        whole = self.write(tmp_path / "m", layout, lambda *_: None).read_bytes()
        for keep in (1, 8, 9, 100, len(whole) // 2, len(whole) - 1):
            path = tmp_path / f"cut-{keep}"
            path.write_bytes(whole[:keep])
            refused(path)

    def test_flipped_bytes_never_crash(self, tmp_path: Path, layout: str) -> None:
        whole = bytearray(self.write(tmp_path / "m", layout, lambda *_: None).read_bytes())
        for position in range(0, min(len(whole), 4000), 97):
            damaged = bytearray(whole)
            damaged[position] ^= 0xFF
            path = tmp_path / "flipped"
            path.write_bytes(damaged)
            with suppress(ModelFormatError):  # or it loads: padding does not matter
                load_model(path)

    @pytest.mark.parametrize("layout", ["released", "community"])  # ours does not state it
    def test_features_that_do_not_fit_the_decoder(self, tmp_path: Path, layout: str) -> None:
        value = 64 if layout == "released" else "64"
        path = self.write(tmp_path / "m", layout, lambda _, c: c.update(decoder_in_channels=value))
        refused(path, "decoder_in_channels is 64; 128 features on a 4x4 map give 8")

    @pytest.mark.parametrize("layout", ["released", "community"])
    def test_decoder_in_channels_that_fit(self, tmp_path: Path, layout: str) -> None:
        value = 8 if layout == "released" else "8"
        path = self.write(tmp_path / "m", layout, lambda _, c: c.update(decoder_in_channels=value))
        assert load_model(path).config.channels[0] == 8


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"solver": "dopri5"}, "solver is 'dopri5'; this build knows euler, rk4"),
        ({"encoding": "cos"}, "encoding is 'cos'"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"num_steps": "ten"}, "num_steps is 'ten'"),
        ({"n_oscillators": 10**9}, "omega has shape (64,), expected (1000000000,)"),
        ({"n_conditional_oscillators": 3}, "omega_cond has shape (2,), expected (3,)"),
    ],
)
def test_released_config_that_is_wrong(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    model = random_model()
    refused(write_released(tmp_path / "m.pt", model, released_config(model) | change), says)


@pytest.mark.parametrize(
    "K",
    [
        torch.zeros(1).expand(64, 64),
        torch.zeros(64, 64).to_sparse(),
        torch.zeros(64, 64, device="meta"),
    ],
    ids=["expanded", "sparse", "meta"],
)
def test_tensors_that_hold_no_numbers(tmp_path: Path, K: torch.Tensor) -> None:
    model = random_model()
    tensors = released_tensors(model) | {"dynamics.K": K}
    torch.save({"model": tensors, "config": released_config(model)}, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", "tensor dynamics.K does not hold all its numbers")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([1, 2, 3], "holds a list, where a checkpoint is a dictionary of tensors"),
        ({"model": {}}, "holds no tensors of an Un-0 model"),
        ({"model": [], "config": {}}, "holds no tensors of an Un-0 model"),
        ({"model": {}, "config": {}}, "it has config, model"),
        ({"model": {"dynamics.K": torch.zeros(2)}, "config": {}}, "K_drive is missing"),
        ({"model": {"dynamics.K_drive": torch.zeros(3)}, "config": {}}, "not three-dimensional"),
        ({"model": {"dynamics.K": 3}, "config": {}}, "'dynamics.K' in the state dict is not"),
    ],
)
def test_a_pt_file_of_something_else(tmp_path: Path, content: object, says: str) -> None:
    torch.save(content, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", says)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("n", "many", "metadata n is 'many', not a number"),
        ("num_steps", None, "metadata num_steps is missing"),
        ("solver", "dopri5", "solver is 'dopri5'"),
        ("integration_time", "-1", "integration_time is -1.0"),
        ("num_blocks", "1000000000", "the file holds 3 decoder blocks"),
        ("format_version", "2", "format None version '2'"),
    ],
)
def test_community_metadata_that_is_wrong(
    tmp_path: Path, key: str, value: str | None, says: str
) -> None:
    tensors, metadata = community(random_model())
    metadata = {k: v for k, v in (metadata | {key: value}).items() if v is not None}
    save_file(tensors, tmp_path / "m", metadata)
    refused(tmp_path / "m", says)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("format_version", "2", "version '2'; this build reads 'un0' version '1'"),
        ("format", "other", "format 'other'"),
        ("config", "{", "lacks a readable config"),
        ("config", "{}", "its config must state exactly"),
        ("labels", '["a"]', "1 labels for 10 classes"),
        ("labels", '"abcdefghij"', "must be a list of texts"),
        ("labels", '["a","A","c","d","e","f","g","h","i","j"]', "name two classes alike"),
        ("metadata", "[]", "must be a dictionary"),
    ],
)
def test_own_header_that_is_wrong(tmp_path: Path, key: str, value: str, says: str) -> None:
    path = tmp_path / "m.safetensors"
    save_model(random_model(), path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, metadata | {key: value})
    refused(path, says)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_hostile_pickle_is_not_executed(tmp_path: Path, legacy: bool) -> None:
    marker = tmp_path / "executed"

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(marker),)

    path = tmp_path / "m.pt"
    torch.save(
        {"model": {"dynamics.K": torch.zeros(1)}, "config": Hostile()},
        path,
        _use_new_zipfile_serialization=not legacy,
    )
    torch.load(path, weights_only=False)
    assert marker.exists()  # the bait works on those who trust it
    marker.rmdir()

    refused(path, "needs code to be run (posix.mkdir), which is refused", "no weights need that")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"GIF89a and so on", "not a checkpoint"),
        (b"<!DOCTYPE html><html>Not found</html>", "is a web page, not a checkpoint"),
        (b'\xef\xbb\xbf\n <html lang="en">', "is a web page, not a checkpoint"),
        (b'{"error": "Repository not found"}', "is JSON text, not a checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5300123\n", LFS),
        (bytes(4096), "filled with zeros: its download was broken off"),
        (b"\x1f\x8b\x08" + bytes(20), "is a gzip archive; unpack it"),
        (bytes(1) + b"a" * 256 + b"ustar" + bytes(9), "is a tar archive; unpack it"),
        (b"GGUF" + bytes(20), "is a GGUF file; export the model as .pt or .safetensors"),
        (struct.pack("<Q", 10**9) + b'{"K":', "damaged or cut short"),
        (b"PK\x03\x04 not really a zip", "damaged"),
    ],
)
def test_not_a_checkpoint(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(content)
    refused(path, says)


def test_an_unreadable_file(tmp_path: Path) -> None:
    loop = tmp_path / "loop.pt"
    loop.symlink_to(loop)
    refused(loop, "cannot be read")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"there is no such file"):
        load_model(tmp_path / "absent.pt")


def test_parameters_that_want_gradients_are_taken_as_numbers(tmp_path: Path) -> None:
    model = random_model().requires_grad_(True)
    state = {name: torch.nn.Parameter(t) for name, t in released_tensors(model).items()}
    torch.save({"model": state, "config": released_config(model)}, tmp_path / "m.pt")
    assert not any(p.requires_grad for p in load_model(tmp_path / "m.pt").parameters())


def test_a_value_that_the_wanted_dtype_cannot_hold(tmp_path: Path) -> None:
    model = random_model()
    model.K[3, 4] = 1e6
    save_model(model, tmp_path / "m.safetensors")
    with pytest.raises(ModelFormatError, match=r"tensor K holds NaN or infinite.*float16"):
        from_pretrained(tmp_path / "m.safetensors", dtype=torch.float16)
