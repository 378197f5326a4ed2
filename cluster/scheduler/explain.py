"""Why the scheduler did what it did: frozen values, kept until the shell takes them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from cluster.scheduler.plan import Rival

Kind = Literal["plan", "hold", "wake", "park", "lease", "probe", "speculate", "set_aside", "pause"]
KEPT = 10_000  # decisions that nobody has taken yet; the oldest go first


@dataclass(frozen=True)
class Decision:
    """One decision. plan: the number of the plan it follows, whose rivals are in a decision of
    that kind. predicted_*: of the whole assignment, or of an image where it is a plan's.

    first, stop: the shards that it is about, if any. demand: what a plan's is about, as
    ``demand_name`` has it.
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


def demand_name(model: str, objective: str) -> str:
    """What jobs that are planned for together have in common, in one word."""
    return f"{model} for {objective}"


class Diary:
    """Decisions that have not been taken out yet."""

    def __init__(self) -> None:
        self._kept: deque[Decision] = deque(maxlen=KEPT)

    def note(self, decision: Decision) -> None:
        self._kept.append(decision)

    def take(self) -> list[Decision]:
        """All decisions since the last call, in order."""
        taken = list(self._kept)
        self._kept.clear()
        return taken
