"""Models to and from files: ``load_model`` reads any known layout, ``save_model`` writes ours."""

from __future__ import annotations

import hashlib
import json
import logging
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
from un0.layouts import Checkpoint
from un0.model import Un0Model
from un0.model_files import file_digest, revision
from un0.unwrap import Weights

logger = logging.getLogger(__name__)


def load_model(
    name_or_path: str | os.PathLike[str],
    dtype: torch.dtype = torch.float32,
    *,
    mapped: bool = False,
) -> Un0Model:
    """A model by catalogue name or file, for inference: eval mode, no gradients.

    ``model.rev`` is the SHA-256 of the file; see ``from_pretrained`` for models of several files,
    and for mapped. A released name is fetched from the Hugging Face Hub when it is not in the
    cache. Raises ModelNotFoundError when there is no such model or file, ModelFormatError when
    the file cannot be used.
    """
    return from_pretrained(name_or_path, dtype=dtype, mapped=mapped)


def from_pretrained(
    name_or_path: str | os.PathLike[str],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    dtype: torch.dtype = torch.float32,
    mapped: bool = False,
    weights: Weights | None = None,
) -> Un0Model:
    """``load_model`` with a say in the Hub's cache, and in which weights are taken.

    name_or_path: a name, a file, the index of a sharded checkpoint, or a folder with one of them.
    ``model.notes`` says what was decided in reading it.

    cache_dir: the Hub's cache folder; None takes ``HF_HUB_CACHE``. local_files_only: never use
    the network. mapped: leave weights that have ``dtype`` already in the mapped file instead of
    copying them. For a model that is dropped soon, as when a Sampler is made of it: until then
    the file must not be changed in place (to be replaced does no harm).
    weights: of a checkpoint that holds averaged weights ("ema") beside those they average
    ("model"), which to take. None takes the average, as trainers do when they generate.

    The revision of one file is its SHA-256. Of several it is the SHA-256 of these digests, in
    order: shards by name, then ``config.json`` where the config is from there, then the name of
    the averaged weights where others lie beside them. So one revision is one set of pixels.
    """
    if not dtype.is_floating_point:
        raise InputError(f"dtype is {dtype}; give a floating-point type such as torch.float32")
    found = locate(name_or_path, cache_dir=cache_dir, local_files_only=local_files_only)
    digests = [file_digest(path) for path in found.files.weights]
    if found.sha256 not in (None, rev := revision(digests)):
        raise ModelFormatError(
            f"{found.files.path}: SHA-256 is {rev}, but the catalogue states {found.sha256}; "
            "the file was changed or damaged: reinstall the package"
        )
    checkpoint = read_checkpoint(found.files, weights)
    if checkpoint.config_file is not None:
        digests.append(file_digest(checkpoint.config_file))
    if checkpoint.averaged_of_two:
        digests.append(hashlib.sha256(checkpoint.metadata["weights"].encode()).digest())
    model = _to_model(checkpoint, found.files.path, dtype, mapped)
    model.file_rev = revision(digests)
    model.labels = model.labels or found.labels
    for note in model.notes:
        logger.info("%s: %s", found.files.path, note)
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
                "save as torch.float32, or fix the training"
            )
    parts = _in_order(save(tensors, metadata=header))
    _replace_file(Path(path), parts)
    return file_digest(Path(path)).hex()


def _to_model(checkpoint: Checkpoint, path: Path, dtype: torch.dtype, mapped: bool) -> Un0Model:
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
    model.notes = checkpoint.notes
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
