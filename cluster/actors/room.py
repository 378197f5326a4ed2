"""How many CPU replicas a machine's memory has room for, and whether a run of its own can start."""

from __future__ import annotations

import logging

from cluster.errors import UserError
from un0.machine import Memory, gb, memory_here
from un0.paths import cache_here

logger = logging.getLogger(__name__)

# Unshared memory of a run's processes under Ray 2.60 and PyTorch 2.13, beside the one that asks and
# the replicas: coordinator and meter 110 MB each, Ray's own seven 360 MB, and some to spare.
RUN_BYTES = 700 * 10**6
REPLICA_BYTES = 500 * 10**6  # Python, PyTorch, compiled loops and images under way; no weights


def room_for(memory: Memory, replica_bytes: int, *, run_bytes: int = 0) -> int:
    """CPU replicas that fit in what is free, at least one.

    replica_bytes: what the model adds to a replica's process. run_bytes: to be left for others.
    """
    return max(1, (memory.usable_bytes - run_bytes) // (REPLICA_BYTES + replica_bytes))


def check_machine() -> None:
    """Before a run of its own starts Ray here: refuse what cannot work, warn of what costs joules.
    Raises UserError."""
    check_memory()
    if costs := cache_here().costs:  # a replica's own warning is read by nobody
        logger.warning("%s", costs)


def check_memory(memory: Memory | None = None) -> None:
    """Raise UserError where a run with one replica does not fit in what is free here: Ray would
    start, be killed bit by bit, and be waited for. memory: None asks this machine."""
    memory = memory or memory_here()
    needed = RUN_BYTES + REPLICA_BYTES
    if memory.usable_bytes < needed:
        raise UserError(
            f"a run on this machine needs about {gb(needed)} of free memory, but {memory}; raise "
            "the limit (docker run --memory, Slurm's --mem, resources.limits.memory of a pod) or "
            "end other programs"
        )
