"""Models to and from files: ``load_model`` reads any known layout, ``save_model`` writes ours."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from un0.catalog import locate
from un0.errors import InputError, ModelFormatError
from un0.formats import read_checkpoint
from un0.header import Header, check_labels, write_header
from un0.model import Un0Model


def load_model(
    name_or_path: str | os.PathLike[str],
    dtype: torch.dtype = torch.float32,
    *,
    mapped: bool = False,
) -> Un0Model:
    """A model by catalogue name or file, for inference: eval mode, no gradients.

    ``model.rev`` is the SHA-256 of the file. A released name is fetched from the Hugging Face Hub
    when it is not in the cache. mapped: see ``from_pretrained``. Raises ModelNotFoundError when
    there is no such model or file, ModelFormatError when the file cannot be used.
    """
    return from_pretrained(name_or_path, dtype=dtype, mapped=mapped)


def from_pretrained(
    name_or_path: str | os.PathLike[str],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    dtype: torch.dtype = torch.float32,
    mapped: bool = False,
) -> Un0Model:
    """``load_model`` with a say in the Hub's cache.

    cache_dir: the Hub's cache folder; None takes ``HF_HUB_CACHE``. local_files_only: never use
    the network. mapped: leave weights that have ``dtype`` already in the mapped file instead of
    copying them. For a model that is dropped soon, as when a Sampler is made of it: until then
    the file must not be changed in place (to be replaced does no harm).
    """
    if not dtype.is_floating_point:
        raise InputError(f"dtype is {dtype}; give a floating-point type such as torch.float32")
    found = locate(name_or_path, cache_dir=cache_dir, local_files_only=local_files_only)
    rev = _sha256(found.path)
    if found.sha256 not in (None, rev):
        raise ModelFormatError(
            f"{found.path}: SHA-256 is {rev}, but the catalogue states {found.sha256}; "
            "the file was changed or damaged: reinstall the package"
        )
    model = _read_model(found.path, dtype, mapped)
    model.file_rev = rev
    model.labels = model.labels or found.labels
    return model


def save_model(
    model: Un0Model,
    path: str | os.PathLike[str],
    dtype: torch.dtype = torch.float32,
    extra_metadata: Mapping[str, Any] | None = None,
) -> str:
    """Write ``model`` as our safetensors, whole or not at all; return its revision (SHA-256).

    dtype: float32 or float16. extra_metadata: anything JSON can hold; the catalogue shows
    ``licence``, ``fid``, ``fid_evaluator`` and ``untrained``. Raises InputError, or
    ModelFormatError when a weight is not finite in ``dtype``.
    """
    if dtype not in (torch.float32, torch.float16):
        raise InputError(f"dtype is {dtype}; a model is saved as torch.float32 or torch.float16")
    labels = check_labels(model.labels, model.config.num_classes)
    try:
        header = write_header(Header(model.config, labels, dict(extra_metadata or {})))
    except (TypeError, ValueError) as error:
        raise InputError(f"extra_metadata cannot be written as JSON: {error}") from error
    tensors = {}
    for name, tensor in model.state_dict().items():
        tensors[name] = tensor.to("cpu", dtype).contiguous()
        if not torch.isfinite(tensors[name]).all():
            raise ModelFormatError(
                f"tensor {name} holds NaN or infinite values as {dtype}; "
                "save as torch.float32, or mend the training"
            )
    parts = _in_order(save(tensors, metadata=header))
    _replace_file(Path(path), parts)
    return _sha256(Path(path))


def _read_model(path: Path, dtype: torch.dtype, mapped: bool) -> Un0Model:
    checkpoint = read_checkpoint(path)
    with torch.device("meta"):
        model = Un0Model(checkpoint.config, checkpoint.labels)
    state = {}
    for name, stored in checkpoint.tensors.items():
        # Else a copy: the file may change under a mapped tensor.
        tensor = stored.to(dtype, copy=not mapped, memory_format=torch.contiguous_format)
        if not _is_finite(tensor):
            raise ModelFormatError(
                f"{path}: tensor {name} holds NaN or infinite values as {dtype}; "
                "the file is damaged or its training diverged"
            )
        state[name] = tensor
    model.load_state_dict(state, assign=True)
    model.metadata = checkpoint.metadata
    return model.eval().requires_grad_(False)


def _is_finite(tensor: torch.Tensor) -> bool:
    """Whether all numbers are finite, without a second tensor of that size: NaN is an extreme."""
    return bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())


def _in_order(content: bytes) -> tuple[bytes, memoryview]:
    """The same safetensors, its header sorted: the library writes metadata in any order."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)  # tensors stay aligned
    return len(header).to_bytes(8, "little") + header, memoryview(content)[end:]


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFormatError(
            f"{path}: cannot be read ({error.strerror}); give a readable checkpoint file"
        ) from error


def _replace_file(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.writelines(parts)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); give a file in a writable folder"
        ) from error
