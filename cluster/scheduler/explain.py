"""Decisions of the scheduler and their reasons, queued until its caller takes them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from cluster.scheduler.plan import Rival
from cluster.types import DEFAULT_ENCODING

Kind = Literal["plan", "hold", "wake", "park", "lease", "probe", "speculate", "set_aside", "pause"]
KEPT = 10_000  # decisions not taken yet; beyond that the oldest are dropped


@dataclass(frozen=True)
class Decision:
    """One decision and its reason, ``why``.

    plan: number of the plan in force; the decision of kind ``plan`` with this number has the
    hardware that was compared (``rivals``) and its ``demand`` (``demand_name``).
    first, stop: the shards concerned, if any; ``stop`` is not included.
    predicted_s, predicted_j: of the whole assignment.
    """

    kind: Kind
    at_s: float
    plan: int
    why: str
    job_id: str | None = None
    replica_id: str | None = None
    hardware: str | None = None
    first: int | None = None
    stop: int | None = None
    predicted_s: float | None = None
    predicted_j: float | None = None
    rivals: tuple[Rival, ...] = ()
    demand: str | None = None


def demand_name(model: str, objective: str, encoding: str) -> str:
    """The name of the demand that all jobs of this model, objective and encoding share. The default
    encoding is not named."""
    name = f"{model} for {objective}"
    return name if encoding == DEFAULT_ENCODING else f"{name} in {encoding}"


class DecisionQueue:
    """Decisions that have not been taken yet."""

    def __init__(self) -> None:
        self._kept: deque[Decision] = deque(maxlen=KEPT)

    def note(self, decision: Decision) -> None:
        """Add a decision."""
        self._kept.append(decision)

    def take(self) -> list[Decision]:
        """All decisions since the last call, in order."""
        taken = list(self._kept)
        self._kept.clear()
        return taken
