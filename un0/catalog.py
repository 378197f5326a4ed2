"""The models that have names: those in the package, and those released on the Hugging Face Hub.

To bundle another model, put its export in ``un0/assets`` and an entry in ``registry.json`` there.
Imports no PyTorch, so that names and labels are at hand in no time.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

from un0.config import ModelConfig, Parameterization, Relativization
from un0.errors import InputError, ModelNotFoundError
from un0.header import read_header
from un0.model_files import ModelFiles, find_files
from un0.paths import keep_elsewhere
from un0.suggest import did_you_mean

DEFAULT_MODEL = "fashion32/n512"
ASSETS = Path(__file__).parent / "assets"
HUB_REPO = "un-ai/Un-0"
_MOST_LABELS = 20  # that an error names

CIFAR10_LABELS = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


@dataclass(frozen=True)
class ModelInfo:
    """One named model. ``fid`` is comparable only between models of the same ``fid_evaluator``.

    where: "bundled" with the package, "cached" in the Hub's cache, or "not here". path and
    size_bytes: of the file on this machine, None when it is not here. untrained: random weights.
    """

    name: str
    n: int
    params: int
    image_size: int
    num_classes: int
    num_steps: int
    labels: tuple[str, ...]
    fid: float | None
    fid_evaluator: str | None
    licence: str | None
    where: Literal["bundled", "cached", "not here"]
    path: str | None
    size_bytes: int | None
    untrained: bool = False


@dataclass(frozen=True)
class Located:
    """What to load. sha256: what it must be, None where nobody has said. labels: of its classes,
    for files that do not hold them."""

    files: ModelFiles
    sha256: str | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Released:
    file: str
    config: ModelConfig
    labels: tuple[str, ...]
    fid: float
    fid_evaluator: str


def _cifar10(n: int, fid: float) -> _Released:
    config = _config(n, 8, 10, 3, "standard", "mean_relative")
    return _Released(f"cifar10_n{n}.pt", config, CIFAR10_LABELS, fid, "clean-fid")


def _imagenet64(n: int, fid: float) -> _Released:
    config = _config(n, 1, 1000, 4, "mup", "ref_oscillator")
    return _Released(f"imagenet64_n{n}.pt", config, (), fid, "ADM")


def _config(
    n: int,
    n_cond: int,
    num_classes: int,
    num_blocks: int,
    parameterization: Parameterization,
    relativization: Relativization,
) -> ModelConfig:
    return ModelConfig(
        n=n,
        n_cond=n_cond,
        num_classes=num_classes,
        num_blocks=num_blocks,
        num_steps=10,
        solver="euler",
        parameterization=parameterization,
        relativization=relativization,
        encoding="sin_cos",
    )


RELEASED: dict[str, _Released] = {
    "cifar10/n1024": _cifar10(1024, 11.16),
    "cifar10/n2048": _cifar10(2048, 9.38),
    "cifar10/n4096": _cifar10(4096, 8.86),
    "imagenet64/n6656": _imagenet64(6656, 8.36),
    "imagenet64/n10240": _imagenet64(10240, 8.04),
    "imagenet64/n16384": _imagenet64(16384, 6.74),
}


def list_models(cache_dir: str | os.PathLike[str] | None = None) -> list[ModelInfo]:
    """Every named model, those of the package first. Does not use the network."""
    bundled = [_bundled_info(name) for name in _registry()]
    return bundled + [_released_info(name, cache_dir) for name in RELEASED]


def locate(
    name_or_path: str | os.PathLike[str],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Located:
    """The files of a model by name (fetched from the Hub if need be) or by path; a name wins.

    Raises ModelNotFoundError; ModelFormatError when a folder does not say which file to take.
    """
    name = os.fspath(name_or_path)
    if name in (bundled := _registry()):
        return Located(find_files(ASSETS / bundled[name]["file"]), bundled[name]["sha256"])
    if name in RELEASED:
        fetched = find_files(_fetch(name, cache_dir, local_files_only))
        return Located(fetched, labels=RELEASED[name].labels)
    path = Path(name)
    if not os.path.lexists(path):
        known = [*bundled, *RELEASED]
        fix = did_you_mean(name, known, then=f"names are {', '.join(known)}", most=1)
        raise ModelNotFoundError(f"no model is named {name!r} and there is no such file; {fix}")
    return Located(find_files(path))


def resolve_classes(
    wanted: Iterable[str | int], labels: Sequence[str], num_classes: int
) -> list[int]:
    """Class ids of labels (case does not matter), of ids, or of ids written as text.

    Raises InputError, naming the label or id and what there is to choose from.
    """
    return list(map(class_resolver(labels, num_classes), wanted))


def class_resolver(labels: Sequence[str], num_classes: int) -> Callable[[str | int], int]:
    """The class id of one item, by the rules of ``resolve_classes``, for many items."""
    by_label = {label.casefold(): index for index, label in enumerate(labels)}
    return lambda item: _resolve_class(item, by_label, labels, num_classes)


def _resolve_class(
    item: str | int, by_label: dict[str, int], labels: Sequence[str], num_classes: int
) -> int:
    if isinstance(item, str) and (found := by_label.get(item.strip().casefold())) is not None:
        return found
    if isinstance(item, bool) or not isinstance(item, str | Integral):
        raise InputError(f"class {item!r} is neither a label nor an id; give a text or an integer")
    if isinstance(item, str) and not re.fullmatch(r"\s*-?[0-9]{1,9}\s*", item):
        if not labels:
            raise InputError(
                f"class {item!r} is a name, but this model names no classes; "
                f"give ids from 0 to {num_classes - 1}"
            )
        raise InputError(f"class {item!r} is unknown; {_class_fix(item, labels, num_classes)}")
    class_id = int(item)
    if not 0 <= class_id < num_classes:
        raise InputError(
            f"class id {class_id} is out of range; this model has classes 0 to {num_classes - 1}"
        )
    return class_id


def _class_fix(item: str, labels: Sequence[str], num_classes: int) -> str:
    """What there is, after what was probably meant: people do not always write Sneaker,Bag."""
    more = f" and {len(labels) - _MOST_LABELS} more" * (len(labels) > _MOST_LABELS)
    names = ", ".join(labels[:_MOST_LABELS]) + more
    there = f"this model has {names} (or ids 0 to {num_classes - 1})"
    text = item.strip(" '\"")
    if text.casefold() in ("all", "*"):
        return f"for all classes leave them out; {there}"
    if re.fullmatch(r"[0-9]+\s*(-|\.\.)\s*[0-9]+", text):
        return f"list ids one by one, as in 0,1,2; {there}"
    if re.search("[;|]", text):
        return f"separate classes by commas; {there}"
    if re.fullmatch(r".+:\s*[0-9.]+", text):
        return f"weights go into a spec file, as in classes: {{{text.split(':')[0]}: 2}}; {there}"
    return did_you_mean(text, labels, then=there)


@cache
def _registry() -> dict[str, dict[str, Any]]:
    """Bundled models: name -> {"file", "sha256"}."""
    models: dict[str, dict[str, Any]] = json.loads((ASSETS / "registry.json").read_text())
    return models


def _bundled_info(name: str) -> ModelInfo:
    path = ASSETS / _registry()[name]["file"]
    header = read_header(path)
    return ModelInfo(
        name=name,
        n=header.config.n,
        params=header.config.num_params,
        image_size=header.config.image_size,
        num_classes=header.config.num_classes,
        num_steps=header.config.num_steps,
        labels=header.labels,
        fid=header.metadata.get("fid"),
        fid_evaluator=header.metadata.get("fid_evaluator"),
        licence=header.metadata.get("licence"),
        where="bundled",
        path=str(path),
        size_bytes=path.stat().st_size,
        untrained=bool(header.metadata.get("untrained", False)),
    )


def _released_info(name: str, cache_dir: str | os.PathLike[str] | None) -> ModelInfo:
    _settle_hub_cache()
    from huggingface_hub import try_to_load_from_cache

    released = RELEASED[name]
    cached = try_to_load_from_cache(HUB_REPO, released.file, cache_dir=_as_str(cache_dir))
    path = cached if isinstance(cached, str) else None
    return ModelInfo(
        name=name,
        n=released.config.n,
        params=released.config.num_params,
        image_size=released.config.image_size,
        num_classes=released.config.num_classes,
        num_steps=released.config.num_steps,
        labels=released.labels,
        fid=released.fid,
        fid_evaluator=released.fid_evaluator,
        licence="MIT",
        where="cached" if path else "not here",
        path=path,
        size_bytes=Path(path).stat().st_size if path else None,
    )


def _fetch(name: str, cache_dir: str | os.PathLike[str] | None, local_only: bool) -> Path:
    _settle_hub_cache()
    from huggingface_hub import hf_hub_download

    file = RELEASED[name].file
    try:
        path = hf_hub_download(
            HUB_REPO, file, cache_dir=_as_str(cache_dir), local_files_only=local_only
        )
    except Exception as error:  # whatever a network can do
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelNotFoundError(
            f"model {name!r} is not in the Hugging Face cache and could not be fetched ({reason}). "
            f"Where there is a network, run `hf download {HUB_REPO} {file}`, then copy that cache "
            "here and set HF_HUB_CACHE to it, or give the path of the file instead of the name"
        ) from error
    return Path(path)


def _settle_hub_cache() -> None:
    """Before the Hub's library is imported: without a home it would make a folder named "~"."""
    if not {"XDG_CACHE_HOME", "HF_HUB_CACHE"} & os.environ.keys():
        keep_elsewhere("HF_HOME", ".cache/huggingface", written=False)


def _as_str(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)
