"""Whatever was done to a good checkpoint: the same bits are loaded, or the reason is said."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from tests.support.checkpoints import Tensors, released_config, released_tensors, same_weights
from tests.support.effort import examples
from un0 import Un0Model, load_model
from un0.errors import ModelFormatError
from un0.testing import random_model

MODEL = random_model(n=16, n_cond=2, num_classes=3, num_blocks=1)
CONFIG = released_config(MODEL)
WRAPPERS = st.lists(
    st.sampled_from(["module", "_orig_mod", "_fsdp_wrapped_module"]), max_size=3
).map(lambda parts: "".join(f"{part}." for part in parts))
PLACES = st.sampled_from(
    ["model", "state_dict", "ema", "ema_model", "params_ema", "model_state_dict", "net"]
)
# Values that a pickle of plain data may hold anywhere.
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from(
        [
            torch.zeros(()),
            torch.zeros(3, 4),
            torch.zeros(0),
            torch.tensor(True),
            torch.zeros(2, 2, dtype=torch.complex64),
            torch.zeros(1).expand(64, 64),
            torch.zeros(4, 4).to_sparse(),
            torch.zeros(4, device="meta"),
        ]
    ),
)
NAMES = st.sampled_from(
    ["K", "dynamics.K", "module.", "", ".", "..", "ema", "model", "config", "decoder", "epoch"]
) | st.text(max_size=6)


def load(content: object, suffix: str = ".pt") -> Un0Model:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"m{suffix}")
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        try:
            return load_model(path)
        except ModelFormatError as error:
            said = str(error)
        assert str(path) in said
        assert "\n" not in said
        raise ModelFormatError(said)


@settings(max_examples=examples(60))
@given(st.data(), WRAPPERS, WRAPPERS, st.lists(PLACES, max_size=2), st.booleans())
def test_every_wrapping_loads_the_same_bits(
    data: st.DataObject, outer: str, inner: str, places: list[str], flat: bool
) -> None:
    tensors = {outer + name: tensor for name, tensor in released_tensors(MODEL, inner).items()}
    order = data.draw(st.permutations(list(tensors)))
    content: Any = {name: tensors[name] for name in order}
    for place in reversed(places):
        if flat:
            content = {f"{place}.{name}": value for name, value in content.items()}
        else:
            content = {place: content}
    content["config"] = CONFIG
    extras = data.draw(
        st.dictionaries(st.sampled_from(["epoch", "optimizer", "lr"]), st.integers())
    )
    loaded = load(extras | content)
    assert same_weights(loaded, MODEL)
    assert loaded.config == MODEL.config


@settings(max_examples=examples(80))
@given(st.data())
def test_every_disturbance_loads_the_same_bits_or_says_why(data: st.DataObject) -> None:
    """A value changed, added or removed anywhere: in the weights, the config, or around them."""
    content: dict[str, Any] = {"model": released_tensors(MODEL), "config": dict(CONFIG)}
    content["ema"] = released_tensors(MODEL)
    for _ in range(data.draw(st.integers(1, 3))):
        part = data.draw(st.sampled_from([content, *content.values()]))
        if not isinstance(part, dict):
            continue
        name = data.draw(st.sampled_from(sorted(part, key=str)) | NAMES if part else NAMES)
        if data.draw(st.booleans()):
            part.pop(name, None)
        else:
            part[name] = data.draw(VALUES)
    try:
        loaded = load(content)
    except ModelFormatError:
        return
    assert same_weights(loaded, MODEL)


@settings(max_examples=examples(100))
@given(st.data(), st.booleans())
def test_every_damaged_file_is_loaded_or_refused(data: st.DataObject, safe: bool) -> None:
    whole = bytearray(GOOD[safe])
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    start = data.draw(st.sampled_from([0, 0, 0, 1, 8]))
    stop = data.draw(st.sampled_from([len(whole)] * 3) | st.integers(0, len(whole)))
    with suppress(ModelFormatError):
        load(bytes(whole[start:stop]))


@settings(max_examples=examples(60))
@given(st.binary(max_size=64), st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04"]))
def test_every_other_file_is_refused(content: bytes, head: bytes) -> None:
    with pytest.raises(ModelFormatError):
        load(head + content)


@settings(max_examples=examples(60))
@given(st.dictionaries(NAMES, st.text(max_size=5), max_size=3), st.data())
def test_every_metadata_of_safetensors_is_read_or_refused(
    metadata: dict[str, str], data: st.DataObject
) -> None:
    keys = ["format", "format_version", "config", "labels", "metadata", "n", "num_blocks", "solver"]
    values = st.sampled_from(["", "1", "un0", "{}", "[]", "nan", "null", "9" * 5000, "-1"])
    metadata = metadata | data.draw(st.dictionaries(st.sampled_from(keys), values))
    tensors: Tensors = data.draw(
        st.sampled_from([released_tensors(MODEL), dict(MODEL.state_dict()), {}])
    )
    with pytest.raises(ModelFormatError):
        load(save(tensors, metadata), ".safetensors")


def _good() -> dict[bool, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m")
        torch.save({"model": released_tensors(MODEL), "config": CONFIG}, path)
        pickle = path.read_bytes()
        save_file(released_tensors(MODEL), path)
        return {False: pickle, True: path.read_bytes()}


GOOD = _good()
