"""How many images an engine takes at once: measured once on a kind of machine, and remembered.

Only for engines that give an image the same bytes in any batch (``any_rows``): what is remembered
changes how fast images come and never a pixel, and may be deleted at any time.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from concurrent.futures import Executor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from time import thread_time
from typing import Any

import torch
from torch import Tensor

from un0.config import ModelConfig
from un0.engine.base import Engine
from un0.paths import cache_folder

CANDIDATES = (16, 32, 64, 128)
ROUNDS = 3
WORTH = 1.01  # a larger tile answers later: it must be that much faster
LONG_S = 1.0  # nor is one tried that would take longer


def measure_tile(engine: Engine, config: ModelConfig, pool: Executor, threads: int) -> int:
    """The smallest of ``CANDIDATES`` that none is clearly faster than, by CPU time.

    Measured as it will be used, each of the pool's threads computing a tile: they share caches.
    """
    each_s: dict[int, float] = {}
    for _ in range(ROUNDS):
        for rows in CANDIDATES:
            if each_s and rows * min(each_s.values()) > LONG_S:
                break
            phases = torch.zeros(rows, config.n + config.n_cond)
            class_ids = torch.zeros(rows, dtype=torch.long)
            times = [pool.submit(_seconds, engine, phases, class_ids) for _ in range(threads)]
            tried_s = sum(time.result() for time in times) / threads / rows
            each_s[rows] = min(tried_s, each_s.get(rows, tried_s))
        if len(each_s) == 1:
            break
    enough_s = WORTH * min(each_s.values())
    return min(rows for rows, tried_s in each_s.items() if tried_s <= enough_s)


def _seconds(engine: Engine, phases: Tensor, class_ids: Tensor) -> float:
    begin_s = thread_time()
    engine(phases, class_ids)
    return thread_time() - begin_s


def key_of(engine: Engine, precision: str, config: ModelConfig, machine: str) -> str:
    """What a measurement depends on, the engines' own code included, as a short name."""
    words = f"{engine.name} {precision} {config} {machine} torch {torch.__version__}"
    digest = sha256(words.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def recall(key: str) -> int | None:
    """What was remembered under the key, if anything sensible."""
    tile = _read().get(key)
    return tile if tile in CANDIDATES else None


def remember(key: str, tile: int) -> None:
    """Keep it for later processes; where no file can be written it is measured again."""
    path = _path()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({**_read(), key: tile}, indent=1))
        temporary.replace(path)


def _read() -> Mapping[str, Any]:
    with suppress(OSError, ValueError):
        content = json.loads(_path().read_text())
        if isinstance(content, dict):
            return content
    return {}


def _path() -> Path:
    return cache_folder() / "tiles.json"
