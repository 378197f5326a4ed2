"""Which files make up a model: one file, a folder with one, or shards with an index.

Reads names, indices and first bytes, never tensors; imports no PyTorch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from un0.errors import ModelFormatError

CONFIG_NAME = "config.json"
_INDEX = ".index.json"
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", _INDEX)
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})\.\w+")
# Files of a training run that hold no weights.
_NOT_WEIGHTS = re.compile(
    r"(optimizer|optim|scheduler|scaler|rng_state|random_states|training_args)"
)
# The same weights a second time, in the formats that Hub repositories keep beside safetensors.
_TWINS = {
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.pt",
    "model.pth",
    "model.bin",
}
_PREFERRED = ("model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model.

    path: what messages name. weights: in the order of their names. index: for shards, the file
    of each tensor.
    """

    path: Path
    weights: tuple[Path, ...]
    index: dict[str, str] | None = None

    @property
    def config(self) -> Path:
        """Where a config lies, if there is one, that the weights do not state themselves."""
        return self.weights[0].parent / CONFIG_NAME


def find_files(path: Path) -> ModelFiles:
    """The files of the model at a file, an index or a folder. Raises ModelFormatError."""
    found = path
    while found.is_dir():
        found = _inside(found)
    if found.name.endswith(_INDEX):
        return _sharded(found)
    if shard := _SHARD.fullmatch(found.name):
        raise ModelFormatError(
            f"{found}: is one shard of {int(shard[2])}; give the directory, or the index "
            f"{shard[1]}.{found.suffix[1:]}{_INDEX} (download it if it is not there)"
        )
    return ModelFiles(found, (found,))


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file. Raises ModelFormatError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise _unreadable(path, error) from error


def revision(digests: Sequence[bytes]) -> str:
    """A model's revision, 64 hex digits: the digest of its one file; of several, the SHA-256 of
    their digests in order."""
    return (digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest()).hex()


def read_json(path: Path) -> Any:
    """The JSON in a file. Raises ModelFormatError."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        what = describe(path.read_bytes()[:64]) or "not JSON"
        raise ModelFormatError(f"{path}: is {what}; copy or download it again") from error


def read_head(path: Path, size: int = 512) -> bytes:
    """The first bytes of a file. Raises ModelFormatError."""
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise _unreadable(path, error) from error


def describe(head: bytes) -> str | None:
    """What a file that begins so is, with the fix, if it is a known thing that is no checkpoint."""
    if head.startswith(b"version https://git-lfs"):
        size = re.search(rb"^size (\d+)", head, re.MULTILINE)
        of = f" of {int(size[1]):,} bytes" if size else ""
        return f"a Git-LFS pointer, not the file{of} it stands for; run `git lfs pull` there"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        return (
            "a web page, not a checkpoint: the server answered with a page (a log-in, an error); "
            "download the file itself, on the Hub with `hf download` or its /resolve/ address"
        )
    if text.startswith((b"{", b"[")):
        return "JSON text, not a checkpoint; give the weights file"
    if head and not head.strip(b"\0"):
        return "filled with zeros: its download was broken off; download it again"
    for magic, kind in _ARCHIVES.items():
        if head.startswith(magic) or (magic == b"ustar" and head[257:262] == magic):
            return f"a {kind} archive; unpack it, and give the checkpoint inside"
    for magic, kind in _FOREIGN.items():
        if head.startswith(magic):
            return f"a {kind} file; export the model as .pt or .safetensors"
    return None


_ARCHIVES = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "RAR",
    b"ustar": "tar",
}
_FOREIGN = {b"\x89HDF": "HDF5", b"GGUF": "GGUF", b"\x93NUMPY": "NumPy", b"\x08\x07": "ONNX"}


def _inside(folder: Path) -> Path:
    """The one thing to load in a folder: a file, an index, or a snapshot of the Hub's cache."""
    if (folder / "snapshots").is_dir():
        return _snapshot(folder)
    names = sorted(path.name for path in folder.iterdir() if not path.is_dir())
    if any(name.endswith(".distcp") for name in names):
        raise ModelFormatError(
            f"{folder}: is a distributed checkpoint of PyTorch; make one file of it: `python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {folder} model.pt`"
        )
    shards = [name for name in names if _SHARD.fullmatch(name)]
    wanted = [
        name
        for name in names
        if name.endswith(_SUFFIXES) and not _NOT_WEIGHTS.match(name) and name not in shards
    ]
    for name in _PREFERRED:
        if name in wanted:
            wanted = [other for other in wanted if other == name or other not in _TWINS]
    if len(wanted) == 1:
        return folder / wanted[0]
    if wanted:
        raise ModelFormatError(
            f"{folder}: is a directory with {len(wanted)} checkpoints; give one of "
            + ", ".join(str(folder / name) for name in wanted)
        )
    if shards:
        return folder / shards[0]
    deeper = sorted(p for suffix in _SUFFIXES for p in folder.glob(f"*/*{suffix}"))[:5]
    hint = f"give one of {', '.join(map(str, deeper))}" if deeper else "give the checkpoint file"
    raise ModelFormatError(f"{folder}: is a directory without a .safetensors or .pt file; {hint}")


def _snapshot(folder: Path) -> Path:
    """The revision to take of a repository in the Hub's cache: what main is, or the only one."""
    snapshots = sorted(path for path in (folder / "snapshots").iterdir() if path.is_dir())
    main = folder / "refs" / "main"
    if main.is_file():
        named = folder / "snapshots" / main.read_text(errors="replace").strip()
        snapshots = [path for path in snapshots if path == named] or snapshots
    if len(snapshots) != 1:
        raise ModelFormatError(
            f"{folder}: is a directory of the Hub's cache with {len(snapshots)} revisions; "
            f"give one of them, {folder}/snapshots/REVISION"
        )
    return snapshots[0]


def _sharded(index: Path) -> ModelFiles:
    stated = read_json(index)
    weight_map = stated.get("weight_map") if isinstance(stated, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFormatError(f"{index}: has no weight_map of tensors to files; download it again")
    for name in weight_map.values():
        if not isinstance(name, str) or Path(name).name != name or "\0" in name:
            raise ModelFormatError(
                f"{index}: names the shard {name!r}; shards must lie beside their index"
            )
    names = sorted(set(weight_map.values()))
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise ModelFormatError(
            f"{index}: {len(missing)} of {len(names)} shards not there: {', '.join(missing)}; "
            "download them into the same directory"
        )
    return ModelFiles(index, tuple(index.parent / name for name in names), weight_map)


def _unreadable(path: Path, error: OSError) -> ModelFormatError:
    fix = "give a readable checkpoint file"
    if path.is_symlink() and not path.exists():
        fix = "it is a link to nothing: copy with `cp -L`, or download it again"
    return ModelFormatError(f"{path}: cannot be read ({error.strerror}); {fix}")
