"""Find the weights in what trainers save: state dicts under other names, prefixes, extras. Pure.

Works on the plain dictionaries and tensors that a safe reader has given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from un0.errors import ModelFormatError

Weights = Literal["ema", "model"]

# Where trainers keep averaged weights, and weights.
_AVERAGED = (
    "ema",
    "ema_model",
    "model_ema",
    "params_ema",
    "ema_state_dict",
    "model_ema_state_dict",
    "state_dict_ema",
    "average",
)
_PLAIN = (
    "model",
    "state_dict",
    "model_state_dict",
    "params",
    "weights",
    "online_model",
    "generator",
    "net",
    "module",
)
_SETS = frozenset((*_AVERAGED, *_PLAIN))
# What wrappers put into tensors' names: DataParallel, torch.compile, FSDP, checkpointing.
_WRAPPERS = {
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
}
# First parts of the names of an Un-0 model's tensors, in any layout.
_PARTS = {"dynamics", "decoder", "dec", "out", "omega", "K", "omega_cond", "K_cond", "K_drive"}
# What trainers keep beside weights: whole groups, and counters.
_GROUPS = {"optimizer", "optim", "opt", "optimizers", "scheduler", "lr_scheduler", "scaler"}
_COUNTERS = {
    "step",
    "steps",
    "global_step",
    "epoch",
    "iteration",
    "num_updates",
    "n_averaged",
    "decay",
    "ema_decay",
    "initted",
    "lr",
}
_MAX_DEPTH = 5
_CONFIGS = ("config", "hyper_parameters", "hparams", "args", "cfg")


@dataclass(frozen=True)
class Found:
    """One state dict among what a file holds.

    tensors: by name, without wrappers' prefixes. taken: where it lay, such as ``ema`` ("" at the
    top). passed_over: where other weights lie. averaged: whether it is a moving average.
    ignored: what else the file holds. configs: what may state its architecture, by name,
    nearest first.
    """

    tensors: dict[str, Tensor]
    taken: str
    passed_over: tuple[str, ...] = ()
    averaged: bool = False
    ignored: tuple[str, ...] = ()
    configs: tuple[tuple[str, Mapping[str, Any]], ...] = ()


@dataclass(frozen=True)
class _Set:
    trail: tuple[str, ...]
    state: Mapping[str, Any]
    configs: tuple[tuple[str, Mapping[str, Any]], ...]

    @property
    def name(self) -> str:
        return ".".join(self.trail)

    @property
    def averaged(self) -> bool:
        return bool(set(self.trail) & set(_AVERAGED)) and self.trail[-1] != "online_model"


def unwrap(content: object, wanted: Weights | None = None) -> Found:
    """The weights in ``content``. Averaged ones are preferred: trainers sample from those.

    wanted: "ema" or "model" to take that. Raises ModelFormatError when there are none, when two
    sets could be meant, or when names collide.
    """
    if not isinstance(content, Mapping):
        raise ModelFormatError(
            f"holds a {type(content).__name__}, where a checkpoint is a dictionary of tensors; "
            "save the model's state_dict()"
        )
    sets = list(_sets(content, (), (), set()))
    if not sets:
        names = sorted(str(name) for name in content)
        raise ModelFormatError(
            "holds no tensors of an Un-0 model (K, K_drive, omega, decoder ...); it has "
            f"{_listed(names) or 'nothing'}: save the model's state_dict() under the key 'model'"
        )
    chosen = _choose(sets, wanted)
    tensors, ignored = _clean(chosen.state)
    if chosen.trail:
        used = {*_CONFIGS, *(s.trail[0] for s in sets)}
        ignored += {str(name) for name in _grouped(content) if name not in used}
    others = tuple(s.name for s in sets if s is not chosen)
    return Found(
        tensors, chosen.name, others, chosen.averaged, tuple(sorted(ignored)), chosen.configs
    )


def _sets(
    node: Mapping[Any, Any],
    trail: tuple[str, ...],
    configs: tuple[tuple[str, Mapping[str, Any]], ...],
    seen: set[int],
) -> Iterator[_Set]:
    if id(node) in seen or len(trail) > _MAX_DEPTH:  # a pickle may hold itself
        return
    seen.add(id(node))
    own = ((name, node[name]) for name in _CONFIGS if isinstance(node.get(name), Mapping))
    configs = (*own, *configs)
    tree = _grouped(node)
    if any(_is_part(name, value) for name, value in tree.items()):
        yield _Set(trail, tree, configs)
        return
    for name in (*_AVERAGED, *_PLAIN):
        if isinstance(inner := tree.get(name), Mapping):
            yield from _sets(inner, (*trail, name), configs, seen)


def _grouped(node: Mapping[Any, Any]) -> dict[str, Any]:
    """The same with ``ema.K`` and the like as K in a dictionary ``ema``."""
    tree: dict[str, Any] = {}
    for name, value in node.items():
        first, *rest = _split(name)
        if rest and first in _SETS and first not in node:
            tree.setdefault(first, {})[".".join(rest)] = value
        else:
            tree[str(name)] = value
    return tree


def _is_part(name: str, value: object) -> bool:
    """Whether this entry belongs to a state dict of an Un-0 model."""
    parts = _split(name)
    return parts[0] in _PARTS and (len(parts) > 1 or isinstance(value, Tensor | Mapping))


def _split(name: object) -> list[str]:
    """A tensor's name in parts, without those that wrappers put in."""
    parts = str(name).split(".")
    return [part for part in parts if part not in _WRAPPERS] or parts[-1:]


def _choose(sets: list[_Set], wanted: Weights | None) -> _Set:
    averaged, plain = ([s for s in sets if s.averaged is kind] for kind in (True, False))
    among = {"ema": averaged, "model": plain, None: averaged or plain}[wanted]
    if not among:
        raise ModelFormatError(
            f"has no {'averaged weights' if wanted == 'ema' else 'weights but averaged ones'}; "
            f"it holds {_listed([s.name or 'one state dict' for s in sets])}"
        )
    shortest = min(len(s.trail) for s in among)
    among = [s for s in among if len(s.trail) == shortest]
    if len(among) > 1:
        raise ModelFormatError(
            f"holds several sets of weights ({_listed([s.name for s in among])}), and any could "
            "be meant; save a checkpoint with one of them, under the key 'model'"
        )
    return among[0]


def _clean(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors by their names without prefixes, and the names of what is not of the model."""
    tensors: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    ignored: list[str] = []
    for given, value in _flat(state):
        parts = _split(given)
        name = ".".join(parts)
        if parts[0] in _GROUPS or _is_counter(parts[-1], value):
            ignored.append(given)
        elif not isinstance(value, Tensor):
            if parts[0] in _PARTS:
                raise ModelFormatError(f"{given!r} in the state dict is not a tensor")
            ignored.append(given)
        elif name in tensors:
            raise ModelFormatError(
                f"tensors {origin[name]} and {given} are both {name} without their prefixes; "
                "save the state dict of one model"
            )
        else:
            tensors[name], origin[name] = value, given
    return tensors, ignored


def _flat(state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and values; state dicts of parts (``dynamics``, ``decoder``) are opened."""
    for name, value in state.items():
        if isinstance(value, Mapping) and _split(name)[-1] in _PARTS:
            yield from ((f"{name}.{inner}", part) for inner, part in value.items())
        else:
            yield str(name), value


def _is_counter(name: str, value: object) -> bool:
    return name in _COUNTERS and not (isinstance(value, Tensor) and value.numel() > 1)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
