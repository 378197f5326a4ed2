"""Files to tensors: ``.pt`` by PyTorch's restricted unpickler, ``.safetensors`` by its library.

No code from a file is ever run. Tensors may be backed by the mapped file.
"""

from __future__ import annotations

import re
import shlex
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from un0.errors import ModelFormatError
from un0.model_files import ModelFiles, describe, read_head

# Modules that a pickle asks for when it wants more than to describe data.
_HOSTILE = {"os", "posix", "nt", "subprocess", "sys", "builtins", "__builtin__", "shutil", "runpy"}
_HOSTILE |= {"socket", "pty", "importlib", "webbrowser", "ctypes", "code", "timeit", "pip"}


@dataclass(frozen=True)
class Content:
    """What a model's files hold. header: the metadata strings of safetensors, empty elsewhere."""

    tree: Any
    header: Mapping[str, str]


def read_content(files: ModelFiles) -> Content:
    """All that the files hold; the content decides how to read one, not its suffix.

    Raises ModelFormatError, naming the file.
    """
    if files.index is None:
        return _read(files.weights[0])
    tensors: dict[str, Any] = {}
    home: dict[str, str] = {}
    for path in files.weights:
        content = _read(path)
        if not isinstance(content.tree, Mapping):
            raise ModelFormatError(f"{path}: holds a {type(content.tree).__name__}, no tensors")
        for name, tensor in content.tree.items():
            if name in tensors:
                raise ModelFormatError(
                    f"{path}: tensor {name} is in {home[name]} too; download the shards again"
                )
            tensors[name], home[name] = tensor, path.name
    for name, shard in files.index.items():
        if home.get(name) != shard:
            raise ModelFormatError(
                f"{files.path}: tensor {name} should be in {shard} and is not; the shards are not "
                "those of this index: download them again"
            )
    return Content(tensors, {})


def _read(path: Path) -> Content:
    head = read_head(path)
    if not head:
        raise ModelFormatError(f"{path}: the file is empty; copy or download it again")
    try:
        if head[4:9] == b"\0\0\0\0{":  # a 64-bit header length, then JSON
            return _read_safetensors(path, int.from_bytes(head[:8], "little"))
        if head[:2] == b"PK":
            return Content(_read_zip(path), {})
        if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
            return Content(_read_torch(path, mmap=False), {})  # torch's older bare pickle
    except ModelFormatError as error:
        raise ModelFormatError(f"{path}: {error}") from error.__cause__
    if what := describe(head):
        raise ModelFormatError(f"{path}: is {what}")
    raise ModelFormatError(
        f"{path}: not a checkpoint (it begins with {head[:9]!r}); "
        "give a .pt or .safetensors file of an Un-0 model"
    )


def _read_safetensors(path: Path, header_bytes: int) -> Content:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Content(tensors, file.metadata() or {})
    except Exception as error:  # whatever a damaged header provokes, dtypes torch lacks included
        size = path.stat().st_size
        have = f"{size:,} bytes, its header alone {header_bytes:,}"
        raise ModelFormatError(
            f"cannot be read as safetensors: it is damaged or cut short ({_first_line(error)}; "
            f"{have if header_bytes + 8 > size else f'{size:,} bytes'}); copy or download it again"
        ) from error


def _read_zip(path: Path) -> Any:
    """torch's own zip archive, also one that was packed again, compressed."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # whatever a damaged directory provokes
        raise ModelFormatError(
            f"its archive has no readable end ({_first_line(error)}): it is damaged or cut short "
            f"at {path.stat().st_size:,} bytes; copy or download it again"
        ) from error
    names = [entry.filename for entry in entries]
    if any(re.fullmatch(r"[^/]+/constants\.pkl", name) for name in names):
        raise ModelFormatError(
            "is a TorchScript program, which holds code; where you trust it, save its weights: "
            f"{_python('torch.save(torch.jit.load(sys.argv[1]).state_dict(), sys.argv[2])', path)}"
        )
    if not any(re.fullmatch(r"[^/]+/data\.pkl", name) for name in names):
        inside = [n for n in names if n.endswith((".pt", ".pth", ".safetensors", ".bin", ".ckpt"))]
        raise ModelFormatError(
            "is a zip archive, not a checkpoint; unpack it, and give "
            + (" or ".join(inside[:3]) or "the checkpoint, if there is one inside")
        )
    return _read_torch(path, mmap=all(e.compress_type == zipfile.ZIP_STORED for e in entries))


def _read_torch(path: Path, mmap: bool) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # of protocols; what matters is an error
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # whatever a damaged or hostile archive provokes
        if names := _code_wanted(path, error):
            raise ModelFormatError(_refusal(names, path)) from error
        raise ModelFormatError(
            "cannot be read as a checkpoint of plain tensors: it is damaged, or needs code to be "
            f"run, which is refused ({_first_line(error)}); download it again from its source"
        ) from error


def _code_wanted(path: Path, error: Exception) -> list[str]:
    """The classes and functions that a pickle asks for and the reader refuses, by name."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)  # reads, runs nothing
    except Exception:  # it knows only the newer format
        names = re.findall(r"(?:GLOBAL|class|function) ([\w.]+\.\w+)", str(error))[:1]
    return sorted({re.sub(r"[^\w.]", "?", str(name))[:100] for name in names})[:5]


def _refusal(names: list[str], path: Path) -> str:
    what = f"needs code to be run ({', '.join(names)}), which is refused"
    if _HOSTILE.intersection(name.split(".")[0] for name in names):
        return f"{what}; no weights need that: do not open it, and get them from another source"
    namespace = any(name.endswith("Namespace") for name in names)
    resave = (
        "c = torch.load(sys.argv[1], weights_only=False); "
        f'config = {"vars" if namespace else "dict"}(c["config"]); '
        'torch.save({"model": dict(c["model"]), "config": config}, sys.argv[2])'
    )
    return f"{what}; where you trust its source, save plain tensors: {_python(resave, path)}"


def _python(code: str, path: Path) -> str:
    words = ["python", "-c", f"import sys, torch; {code}", str(path), f"plain-{path.stem}.pt"]
    return shlex.join(words)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
