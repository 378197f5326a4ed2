"""Models that are folders: the Hub's, shards with an index, and what is said of the rest."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support.checkpoints import released_config, released_tensors, write_released
from un0 import Un0Model, load_model, save_model
from un0.errors import ModelFormatError
from un0.testing import random_model


@pytest.fixture(scope="module")
def model() -> Un0Model:
    return random_model()


def refused(path: Path, *says: str) -> None:
    with pytest.raises(ModelFormatError) as caught:
        load_model(path)
    for text in (str(path), *says):
        assert text in str(caught.value)


def loads(path: Path, model: Un0Model) -> Un0Model:
    loaded = load_model(path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert loaded.config == model.config
    return loaded


def write_shards(folder: Path, model: Un0Model, kind: str = "safetensors", count: int = 3) -> Path:
    """The model in shards, its config beside them, as the Hub's tools write it. The index."""
    folder.mkdir(exist_ok=True)
    tensors = released_tensors(model)
    stem = "model" if kind == "safetensors" else "pytorch_model"
    weight_map: dict[str, str] = {}
    for i in range(count):
        name = f"{stem}-{i + 1:05d}-of-{count:05d}.{kind}"
        part = {key: t for j, (key, t) in enumerate(tensors.items()) if j % count == i}
        weight_map |= dict.fromkeys(part, name)
        if kind == "safetensors":
            save_file(part, folder / name, {"format": "pt"})
        else:
            torch.save(part, folder / name)
    index = folder / f"{stem}.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(released_config(model)))
    return index


# --- one file ---


@pytest.mark.parametrize("name", ["model.safetensors", "weights.pt", "pytorch_model.bin"])
def test_a_folder_with_one_checkpoint(tmp_path: Path, model: Un0Model, name: str) -> None:
    if name.endswith("safetensors"):
        save_model(model, tmp_path / name)
    else:
        write_released(tmp_path / name, model)
    for other in ("config.json", "README.md", "optimizer.pt", "training_args.bin", "scheduler.pt"):
        (tmp_path / other).write_text("{}")
    assert loads(tmp_path, model).rev == load_model(tmp_path / name).rev


def test_safetensors_wins_over_the_same_weights_in_another_format(
    tmp_path: Path, model: Un0Model
) -> None:
    rev = save_model(model, tmp_path / "model.safetensors")
    write_released(tmp_path / "pytorch_model.bin", random_model(seed=1))
    assert loads(tmp_path, model).rev == rev


def test_a_snapshot_of_the_hubs_cache(tmp_path: Path, model: Un0Model) -> None:
    repo = tmp_path / "models--a--b"
    (repo / "blobs").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("new")
    for commit, seed in (("old", 1), ("new", 0)):
        snapshot = repo / "snapshots" / commit
        snapshot.mkdir(parents=True)
        save_model(random_model(seed=seed), repo / "blobs" / commit)
        (snapshot / "model.safetensors").symlink_to(repo / "blobs" / commit)
    loads(repo / "snapshots" / "new", model)
    loads(repo, model)
    (repo / "refs" / "main").unlink()
    refused(repo, "with 2 revisions; give one of them")
    (repo / "blobs" / "new").unlink()
    refused(repo / "snapshots" / "new", "a link to nothing: copy with `cp -L`")


def test_a_folder_with_several(tmp_path: Path, model: Un0Model) -> None:
    for name in ("step1.pt", "step2.pt"):
        write_released(tmp_path / name, model)
    refused(tmp_path, "with 2 checkpoints; give one of", str(tmp_path / "step1.pt"))


def test_a_folder_with_none(tmp_path: Path, model: Un0Model) -> None:
    refused(tmp_path, "without a .safetensors or .pt file; give the checkpoint file")
    (tmp_path / "inner").mkdir()
    write_released(tmp_path / "inner" / "m.pt", model)
    refused(tmp_path, f"give one of {tmp_path / 'inner' / 'm.pt'}")
    (tmp_path / "__0_0.distcp").touch()
    refused(tmp_path, "dcp_to_torch")


def test_a_clone_without_its_large_files(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (tmp_path / "model.safetensors").write_text(pointer)
    refused(tmp_path / "model.safetensors", "Git-LFS pointer", "git lfs pull")
    refused(tmp_path, "Git-LFS pointer")


# --- shards ---


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_load_as_one_model_and_have_one_revision(
    tmp_path: Path, model: Un0Model, kind: str
) -> None:
    index = write_shards(tmp_path / "a", model, kind)
    loaded = loads(index.parent, model)
    assert load_model(index).rev == loaded.rev
    files = [*sorted(index.parent.glob("*-of-*")), index.parent / "config.json"]
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in files]
    assert loaded.rev == hashlib.sha256(b"".join(digests)).hexdigest()

    shutil.copytree(tmp_path / "a", tmp_path / "other node")
    content = json.loads(index.read_text())
    turned = dict(reversed(content["weight_map"].items()))
    (tmp_path / "other node" / index.name).write_text(json.dumps({"weight_map": turned}))
    assert load_model(tmp_path / "other node").rev == loaded.rev


def test_missing_shards_are_named(tmp_path: Path, model: Un0Model) -> None:
    index = write_shards(tmp_path, model)
    for number in (1, 3):
        (tmp_path / f"model-0000{number}-of-00003.safetensors").unlink()
    missing = "model-00001-of-00003.safetensors, model-00003-of-00003.safetensors"
    refused(index, f"2 of 3 shards not there: {missing}; download them")
    refused(tmp_path, missing)


def test_shards_without_their_index(tmp_path: Path, model: Un0Model) -> None:
    index = write_shards(tmp_path, model)
    shard = tmp_path / "model-00001-of-00003.safetensors"
    refused(
        shard, "is one shard of 3; give the directory, or the index model.safetensors.index.json"
    )
    index.unlink()
    refused(tmp_path, "is one shard of 3", "download it if it is not there")


def test_shards_that_are_not_those_of_the_index(tmp_path: Path, model: Un0Model) -> None:
    write_shards(tmp_path, model)
    first, second = (tmp_path / f"model-0000{i}-of-00003.safetensors" for i in (1, 2))
    content = second.read_bytes()
    shutil.copy(first, second)
    refused(tmp_path, str(second), "is in model-00001-of-00003.safetensors too")
    second.write_bytes(content[:-9])
    refused(tmp_path, str(second), "damaged or cut short")
    save_file({"epoch": torch.zeros(1)}, second)
    refused(tmp_path / "model.safetensors.index.json", "should be in model-0000")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{}", "has no weight_map"),
        ('{"weight_map": {}}', "has no weight_map"),
        ("[", "is JSON text"),
        ('{"weight_map": {"K": "../../etc/passwd"}}', "shards must lie beside their index"),
        ('{"weight_map": {"K": "/etc/passwd"}}', "shards must lie beside their index"),
        ('{"weight_map": {"K": 3}}', "shards must lie beside their index"),
        ('{"weight_map": {"K": []}}', "shards must lie beside their index"),
    ],
)
def test_an_index_that_is_wrong(tmp_path: Path, content: str, says: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(content)
    refused(index, says)
