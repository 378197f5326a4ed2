"""Small fleets and jobs for tests of the simulator, and a scheduler that follows a script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cluster.scenario.arrivals import Arrival
from cluster.scenario.fleet import FleetSpec
from cluster.scheduler.commands import Command
from cluster.scheduler.events import Event
from cluster.scheduler.profiles import ProfileBook
from cluster.scheduler.request import JobRequest
from cluster.simulation.baselines import BASELINES
from cluster.simulation.baselines.base import Baseline

MODEL = "m"
SOURCE = {"text": "made up", "year": 2026}


def hardware(name: str, count: int = 1, rate: float = 100.0, **changes: Any) -> dict[str, Any]:
    """A kind of device: 100 W at full speed, 20 W warm, a load of 10 s at 50 W."""
    return {
        "name": name,
        "count": count,
        "images_per_s": {MODEL: rate},
        "points": [{"batch_size": 64, "speed": 1.0, "power_w": 100.0, "source": SOURCE}],
        "idle_w": 20.0,
        "parked_w": 0.0,
        "load_s": 10.0,
        "load_w": 50.0,
        "park_s": 1.0,
        "sources": dict.fromkeys(("images_per_s", "idle_w", "parked_w", "load_s"), SOURCE),
        **changes,
    }


def fleet(*kinds: dict[str, Any]) -> FleetSpec:
    return FleetSpec.model_validate({"name": "test", "hardware": list(kinds)})


def job(
    name: str, at_s: float, images: int, slack_s: float | None = 1000.0, shard_images: int = 10
) -> Arrival:
    deadline_s = None if slack_s is None else at_s + slack_s
    return Arrival(at_s, JobRequest(name, MODEL, images, shard_images, deadline_s=deadline_s))


def baseline(name: str, spec: FleetSpec) -> Baseline:
    return BASELINES[name](ProfileBook(spec.profiles()), spec.models)


class Recorder:
    """Wraps a scheduler and records its events and commands."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.events = inner, list[Event]()

    def handle(self, event: Event) -> list[Command]:
        self.events.append(event)
        commands: list[Command] = self.inner.handle(event)
        return commands


class Scripted:
    """A scheduler that answers each event by a function of it."""

    def __init__(self, answer: Callable[[Event], Sequence[Command]]) -> None:
        self._answer = answer

    def handle(self, event: Event) -> list[Command]:
        return list(self._answer(event))
